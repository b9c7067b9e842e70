import { assert } from '../../common/errors.ts';
import type { Group } from './collectives.ts';
import { type LaneRange, maximalSubtrees, type TreeAddition, treeAdditions } from './lane-tree.ts';
import { type AddingSlots, createAddingSlots } from './wasm-add.ts';

/** 16 KiB of floats: two slots and the memory they come from stay in the first- and second-level caches. */
const BLOCK_FLOATS = 4096;

/** The partial vectors of a group, in lane order, and the additions that sum them: the same for every rank of a generation. */
export interface ReductionPlan {
  /** All ranks' maximal subtrees in lane order. */
  readonly leaves: readonly LaneRange[];
  /** Index of each rank's first leaf. */
  readonly firstLeaf: readonly number[];
  readonly leafCount: readonly number[];
  readonly additions: readonly TreeAddition[];
}

export function planReduction(group: Group): ReductionPlan {
  const leaves: LaneRange[] = [];
  const firstLeaf: number[] = [];
  const leafCount: number[] = [];
  for (const member of group.members) {
    const subtrees = maximalSubtrees(group.laneCount, { begin: member.laneBegin, end: member.laneEnd });
    firstLeaf.push(leaves.length);
    leafCount.push(subtrees.length);
    leaves.push(...subtrees);
  }
  return { leaves, firstLeaf, leafCount, additions: treeAdditions({ begin: 0, end: group.laneCount }, leaves) };
}

/** Sums vectors in a plan's order. Inputs are not changed; the output may not overlap them. */
export class TreeReducer {
  readonly #plan: ReductionPlan;
  readonly #slots: AddingSlots;

  constructor(plan: ReductionPlan) {
    this.#plan = plan;
    this.#slots = createAddingSlots(Math.max(1, plan.leaves.length), BLOCK_FLOATS);
  }

  /** out[i] = tree sum of leaves[*][i] for i in [begin, end); `offsets[k]` is where index `begin` lies in leaves[k]. */
  sum(
    leaves: readonly Float32Array[],
    offsets: readonly number[],
    out: Float32Array,
    begin: number,
    end: number,
  ): void {
    assert(leaves.length === this.#plan.leaves.length, 'one vector per leaf', {
      vectors: leaves.length,
      leaves: this.#plan.leaves.length,
    });
    for (let at = begin; at < end; at += BLOCK_FLOATS) {
      const floats = Math.min(BLOCK_FLOATS, end - at);
      for (let k = 0; k < leaves.length; k++) {
        const from = offsets[k]! + at - begin;
        this.#slots.slot(k).set(leaves[k]!.subarray(from, from + floats));
      }
      for (const { target, source } of this.#plan.additions) this.#slots.add(target, source, floats);
      out.set(floats === BLOCK_FLOATS ? this.#slots.slot(0) : this.#slots.slot(0).subarray(0, floats), at);
    }
  }
}
