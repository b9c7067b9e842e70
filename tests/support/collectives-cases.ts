import { RandomStream } from '../../common/random.ts';
import type { Group, GroupMember } from '../../worker/collectives/collectives.ts';
import { maximalSubtrees, splitPoint } from '../../worker/collectives/lane-tree.ts';

/** Inputs and expected results for tests of the collectives. */

/** A group of `world` members over `laneCount` lanes cut as evenly as may be (uneven where it does not divide). */
export function evenGroup(world: number, laneCount: number, generation = 1, rank = 0, run = 'test'): Group {
  const members: GroupMember[] = Array.from({ length: world }, (_, r) => ({
    memberId: `m${r}`,
    laneBegin: Math.floor((r * laneCount) / world),
    laneEnd: Math.floor(((r + 1) * laneCount) / world),
  }));
  return { run, generation, rank, members, laneCount };
}

/** One vector per lane, of mixed magnitudes so that the order of additions shows in the bits. */
export function laneVectors(laneCount: number, floats: number, seed: string): Float32Array[] {
  return Array.from({ length: laneCount }, (_, lane) => {
    const next = quickRandom(seed, lane);
    const vector = new Float32Array(floats);
    for (let i = 0; i < floats; i++) vector[i] = (next() - 2 ** 31) * 10 ** -(next() % 6);
    return vector;
  });
}

/** xorshift32: megabytes of test data in no time; keyed by the stream of the project. */
function quickRandom(seed: string, index: number): () => number {
  let state = new RandomStream(seed, index).uint32() | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

/** The sum over lanes [begin, end) by plain recursion over the tree: the reference. */
export function serialTreeSum(vectors: readonly Float32Array[], begin = 0, end = vectors.length): Float32Array {
  if (end - begin === 1) return vectors[begin]!.slice();
  const middle = splitPoint({ begin, end });
  const left = serialTreeSum(vectors, begin, middle);
  const right = serialTreeSum(vectors, middle, end);
  for (let i = 0; i < left.length; i++) left[i] = left[i]! + right[i]!;
  return left;
}

/** What a member sends: one partial per maximal subtree it holds, on shared memory. */
export function lanePartials(vectors: readonly Float32Array[], member: GroupMember): Float32Array[] {
  return maximalSubtrees(vectors.length, { begin: member.laneBegin, end: member.laneEnd }).map(({ begin, end }) =>
    shared(serialTreeSum(vectors, begin, end)),
  );
}

export function shared(values: Float32Array): Float32Array {
  const out = new Float32Array(new SharedArrayBuffer(values.byteLength));
  out.set(values);
  return out;
}

export function sharedBytes(length: number): Uint8Array {
  return new Uint8Array(new SharedArrayBuffer(length));
}

export function sameBytes(a: ArrayBufferView, b: ArrayBufferView): boolean {
  return Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength));
}

/** The block of one lane in a gather: bytes that name the lane. */
export function laneBlock(lane: number, laneBytes: number, seed: number): Uint8Array {
  const next = quickRandom('block', lane + 1000 * seed);
  const block = new Uint8Array(laneBytes);
  for (let i = 0; i < laneBytes; i++) block[i] = next();
  return block;
}
