import { assert } from '../../common/errors.ts';
import { type LaneRange, maximalSubtrees, splitPoint } from '../collectives/lane-tree.ts';

/**
 * How a worker adds its lanes' gradients up in the fixed tree while it computes the lanes in order: a lane either starts a
 * partial-sum buffer or is added to one, and some buffers merge once a lane is done. Only log2(lanes) buffers are ever live.
 */
export interface LaneStep {
  readonly lane: number;
  readonly buffer: number;
  /** true: the buffer is overwritten; false: the lane is added to it. */
  readonly starts: boolean;
  /** Then, in order: target += source (buffers). */
  readonly merges: readonly { readonly target: number; readonly source: number }[];
}

export interface LaneSchedule {
  readonly steps: readonly LaneStep[];
  /** Buffer that holds each maximal subtree's sum at the end, in lane order. */
  readonly results: readonly number[];
  readonly bufferCount: number;
}

interface MutableStep {
  lane: number;
  buffer: number;
  starts: boolean;
  merges: { target: number; source: number }[];
}

/** The schedule for a worker that holds `held` of `laneCount` lanes. */
export function laneSchedule(laneCount: number, held: LaneRange): LaneSchedule {
  const steps: MutableStep[] = [];
  const free: number[] = [];
  let bufferCount = 0;
  const take = (): number => free.pop() ?? bufferCount++;

  const visit = (node: LaneRange): number => {
    if (node.end - node.begin === 1) {
      const buffer = take();
      steps.push({ lane: node.begin, buffer, starts: true, merges: [] });
      return buffer;
    }
    const middle = splitPoint(node);
    const left = visit({ begin: node.begin, end: middle });
    if (node.end - middle === 1) {
      steps.push({ lane: middle, buffer: left, starts: false, merges: [] });
      return left;
    }
    const right = visit({ begin: middle, end: node.end });
    const last = steps.at(-1);
    assert(last !== undefined, 'a subtree has lanes');
    last.merges.push({ target: left, source: right });
    free.push(right);
    return left;
  };

  const results = maximalSubtrees(laneCount, held).map(visit);
  return { steps, results, bufferCount };
}
