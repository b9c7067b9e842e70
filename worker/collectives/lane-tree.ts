import { assert } from '../../common/errors.ts';

/**
 * The fixed binary tree over lanes. A node is a range [begin, end); its split point depends on the range alone, so every
 * sum over lanes has one order of additions, whoever holds the lanes (DESIGN §2.2).
 */
export interface LaneRange {
  readonly begin: number;
  /** Exclusive. */
  readonly end: number;
}

/** Where a node splits: the left child takes the largest power of two smaller than the size. */
export function splitPoint(range: LaneRange): number {
  const size = range.end - range.begin;
  assert(size >= 2, 'only a node of two lanes or more splits', { ...range });
  let left = 1;
  while (left * 2 < size) left *= 2;
  return range.begin + left;
}

/** The maximal subtrees of the tree over [0, laneCount) that lie inside `held`, in lane order: what a worker sends. At most
 * 2·log2(laneCount) of them. */
export function maximalSubtrees(laneCount: number, held: LaneRange): LaneRange[] {
  const found: LaneRange[] = [];
  const visit = (node: LaneRange): void => {
    if (node.end <= held.begin || node.begin >= held.end) return;
    if (node.begin >= held.begin && node.end <= held.end) {
      found.push(node);
      return;
    }
    const middle = splitPoint(node);
    visit({ begin: node.begin, end: middle });
    visit({ begin: middle, end: node.end });
  };
  if (held.end > held.begin) visit({ begin: 0, end: laneCount });
  return found;
}

/** One addition of the tree: `target += source`. */
export interface TreeAddition {
  readonly target: number;
  readonly source: number;
}

/** The additions that combine leaves (given subtrees in lane order that tile `root`) into the value of `root`, as indices
 * into `leaves`; the result ends up at index 0. */
export function treeAdditions(root: LaneRange, leaves: readonly LaneRange[]): TreeAddition[] {
  const additions: TreeAddition[] = [];
  const visit = (node: LaneRange): number => {
    const exact = leaves.findIndex((leaf) => leaf.begin === node.begin && leaf.end === node.end);
    if (exact >= 0) return exact;
    const middle = splitPoint(node);
    const left = visit({ begin: node.begin, end: middle });
    const right = visit({ begin: middle, end: node.end });
    additions.push({ target: left, source: right });
    return left;
  };
  visit(root);
  return additions;
}
