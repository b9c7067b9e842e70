import type { Group } from '../collectives.ts';
import type { ReductionPlan, TreeReducer } from '../reduce-kernel.ts';
import type { PendingOp } from './pending-op.ts';
import type { StagingPool } from './staging-pool.ts';
import type { TransferPlane } from './transfer-plane.ts';

export interface ReduceCall {
  readonly op: string;
  readonly partials: readonly Float32Array[];
  readonly out: Float32Array;
  readonly pending: PendingOp;
}

export interface ReduceModules {
  readonly group: Group;
  readonly plan: ReductionPlan;
  readonly reducer: TreeReducer;
  readonly plane: TransferPlane;
  readonly staging: StagingPool;
  readonly chunkBytes: number;
}

/** Part numbers of a reduction's transfers. */
const PART_SUM = 0;
const PART_FIRST_PARTIAL = 1;

/** The piece of the vector that a rank sums for all: [begin, end) in floats, starting on a 16-byte boundary. */
export function ownedSlice(floats: number, world: number, rank: number): { begin: number; end: number } {
  const cut = (r: number) => (r === world ? floats : Math.floor((floats * r) / world) & ~3);
  return { begin: cut(rank), end: cut(rank + 1) };
}

/** Everybody sends its partials to everybody, and everybody sums in the same order: one hop, for vectors of at most SMALL_BYTES.
 * Returns what to do once all have arrived. */
export function startSmallReduce(
  call: ReduceCall,
  modules: ReduceModules,
): { finish: () => void; buffers: ArrayBuffer[] } {
  const { group, plan, plane } = modules;
  const { op, partials, out, pending } = call;
  const leaves: Float32Array[] = new Array(plan.leaves.length);
  const buffers: ArrayBuffer[] = [];
  for (const rank of group.members.keys()) {
    const count = plan.leafCount[rank]!;
    if (count === 0) continue;
    const buffer = modules.staging.take(4 * count * out.length);
    buffers.push(buffer);
    for (let k = 0; k < count; k++)
      leaves[plan.firstLeaf[rank]! + k] = new Float32Array(buffer, 4 * k * out.length, out.length);
    if (rank === group.rank) {
      for (let k = 0; k < count; k++) leaves[plan.firstLeaf[rank]! + k]!.set(partials[k]!);
      plane.send({
        op,
        part: PART_SUM,
        destinations: peersOf(group),
        bytes: new Uint8Array(buffer),
        ready: true,
        onReceipts: () => {},
      });
    } else {
      plane.expect({
        op,
        part: PART_SUM,
        source: rank,
        target: new Uint8Array(buffer),
        onComplete: pending.hold(),
        onMisfit: (error) => pending.reject(error),
      });
    }
  }
  return {
    finish: () =>
      modules.reducer.sum(
        leaves,
        leaves.map(() => 0),
        out,
        0,
        out.length,
      ),
    buffers,
  };
}

/** Reduce-scatter and all-gather in one pipeline: each chunk of a slice is summed by its owner as soon as all partials of that chunk
 * are there, and goes out at once. Returns the buffers to give back at the end. */
export function startSlicedReduce(call: ReduceCall, modules: ReduceModules): { buffers: ArrayBuffer[] } {
  const { group, plane } = modules;
  const { op, partials, out, pending } = call;
  const world = group.members.length;
  // Starting with the next rank, so that not everybody sends to rank 0 first.
  for (let step = 1; step < world; step++) {
    const owner = (group.rank + step) % world;
    const slice = ownedSlice(out.length, world, owner);
    if (slice.begin === slice.end) continue;
    for (const [k, partial] of partials.entries()) {
      const bytes = bytesOf(partial.subarray(slice.begin, slice.end));
      plane.send({
        op,
        part: PART_FIRST_PARTIAL + k,
        destinations: [owner],
        bytes,
        ready: true,
        onReceipts: pending.hold(),
      });
    }
    plane.expect({
      op,
      part: PART_SUM,
      source: owner,
      target: bytesOf(out.subarray(slice.begin, slice.end)),
      onComplete: pending.hold(),
      onMisfit: (error) => pending.reject(error),
    });
  }
  return { buffers: sumOwnSlice(call, modules) };
}

function sumOwnSlice(call: ReduceCall, modules: ReduceModules): ArrayBuffer[] {
  const { group, plan, plane } = modules;
  const { op, partials, out, pending } = call;
  const slice = ownedSlice(out.length, group.members.length, group.rank);
  const floats = slice.end - slice.begin;
  if (floats === 0) return [];
  const chunkFloats = modules.chunkBytes / 4;
  const chunkCount = Math.ceil(floats / chunkFloats);
  const leaves: Float32Array[] = new Array(plan.leaves.length);
  const origins: number[] = new Array(plan.leaves.length).fill(0);
  const own = plan.firstLeaf[group.rank]!;
  for (const [k, partial] of partials.entries()) {
    leaves[own + k] = partial;
    origins[own + k] = slice.begin;
  }
  const summed = pending.hold();
  const sumReceipts = pending.hold();
  const sum = plane.send({
    op,
    part: PART_SUM,
    destinations: peersOf(group),
    bytes: bytesOf(out.subarray(slice.begin, slice.end)),
    ready: false,
    onReceipts: sumReceipts,
  });
  const remote = plan.leaves.length - partials.length;
  const missing = new Uint32Array(chunkCount).fill(remote);
  let chunksLeft = chunkCount;
  const addChunk = (chunk: number) => {
    const begin = chunk * chunkFloats;
    const end = Math.min(begin + chunkFloats, floats);
    modules.reducer.sum(
      leaves,
      origins.map((origin) => origin + begin),
      out,
      slice.begin + begin,
      slice.begin + end,
    );
    sum.markReady(chunk);
    plane.schedulePump();
    if (--chunksLeft === 0) summed();
  };
  if (remote === 0) {
    for (let chunk = 0; chunk < chunkCount; chunk++) addChunk(chunk);
    return [];
  }
  const onChunk = (chunk: number) => {
    if (--missing[chunk]! === 0) addChunk(chunk);
  };
  const buffers: ArrayBuffer[] = [];
  const onMisfit = pending.reject.bind(pending);
  // All buffers first: a chunk that came early may complete a sum inside `expect`.
  for (const [leaf] of plan.leaves.entries()) {
    if (leaf >= own && leaf < own + partials.length) continue;
    const buffer = modules.staging.take(4 * floats);
    buffers.push(buffer);
    leaves[leaf] = new Float32Array(buffer);
  }
  for (const source of peersOf(group)) {
    for (let k = 0; k < plan.leafCount[source]!; k++) {
      const target = bytesOf(leaves[plan.firstLeaf[source]! + k]!);
      plane.expect({ op, part: PART_FIRST_PARTIAL + k, source, target, onChunk, onComplete: () => {}, onMisfit });
    }
  }
  return buffers;
}

export function peersOf(group: Group): number[] {
  return [...group.members.keys()].filter((rank) => rank !== group.rank);
}

function bytesOf(floats: Float32Array): Uint8Array {
  return new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
}
