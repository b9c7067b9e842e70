import { assert } from '../../common/errors.ts';

export interface LaneSpan {
  readonly begin: number;
  /** Exclusive. */
  readonly end: number;
}

/** Divides lanes [0, laneCount) into contiguous spans, one per weight in order, sizes in proportion to the weights (largest
 * remainder, ties to the earlier), each at least one lane. Needs 1 ≤ weights.length ≤ laneCount. */
export function divideLanes(laneCount: number, weights: readonly number[]): LaneSpan[] {
  const count = weights.length;
  assert(count >= 1 && count <= laneCount, 'lanes are divided among 1 to laneCount holders', { laneCount, count });
  const usable = weights.map((weight) => (Number.isFinite(weight) && weight > 0 ? weight : 1));
  const total = usable.reduce((sum, weight) => sum + weight, 0);
  // One lane each first, so that a slow member still counts; the rest in proportion.
  const spare = laneCount - count;
  const exact = usable.map((weight) => (spare * weight) / total);
  const sizes = exact.map((share) => 1 + Math.floor(share));
  let left = laneCount - sizes.reduce((sum, size) => sum + size, 0);
  const byRemainder = exact.map((share, index) => ({ index, remainder: share - Math.floor(share) }));
  byRemainder.sort((a, b) => b.remainder - a.remainder || a.index - b.index);
  for (const { index } of byRemainder) {
    if (left === 0) break;
    sizes[index]! += 1;
    left -= 1;
  }
  const spans: LaneSpan[] = [];
  let begin = 0;
  for (const size of sizes) {
    spans.push({ begin, end: begin + size });
    begin += size;
  }
  return spans;
}
