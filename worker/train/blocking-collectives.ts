import type { LaneRange } from '../collectives/lane-tree.ts';
import { maximalSubtrees, treeAdditions } from '../collectives/lane-tree.ts';

/**
 * What a training step needs of the tensor plane, as blocking calls: the compute thread is synchronous, so an all-gather is an
 * ordinary op. All arrays are views on shared memory. Errors are those of `Collectives`.
 */
export interface BlockingCollectives {
  /** Names the generation that the operations after it belong to: those of an older one are refused with ABORTED. */
  enter(generation: number): void;
  /** Fills `out` (lanes × laneBytes) with every lane's block; this worker's own lanes are already in place. */
  allGather(op: number, laneBytes: number, out: Uint8Array): void;
  /** Begins summing over all lanes in the fixed tree; `partials` (one per maximal subtree held) must not change until waited for. */
  startTreeAllReduce(op: number, partials: readonly Float32Array[], out: Float32Array): number;
  wait(ticket: number): void;
}

/** A world of one: the gather is a no-op and the tree is summed in place. The reference for every other world size. */
export class SoloCollectives implements BlockingCollectives {
  readonly #laneCount: number;
  readonly #add: (target: Float32Array, source: Float32Array) => void;

  constructor(laneCount: number, add: (target: Float32Array, source: Float32Array) => void) {
    this.#laneCount = laneCount;
    this.#add = add;
  }

  enter(): void {}

  allGather(): void {}

  startTreeAllReduce(_op: number, partials: readonly Float32Array[], out: Float32Array): number {
    const root: LaneRange = { begin: 0, end: this.#laneCount };
    for (const { target, source } of treeAdditions(root, maximalSubtrees(this.#laneCount, root))) {
      this.#add(partials[target]!, partials[source]!);
    }
    out.set(partials[0]!);
    return 0;
  }

  wait(): void {}
}

/** Collectives without anybody else and without results. */
export const NOBODY: BlockingCollectives = {
  enter: () => undefined,
  allGather: () => undefined,
  startTreeAllReduce: () => 0,
  wait: () => undefined,
};
