/** Sums and digests over plain memory, as native/host_math.cc computes them, bit for bit. */

const SUM_BLOCK = 4096;
const SUM_LANES = 8;
const DIGEST_STREAMS = 16;

/** Sum of squares in fp64: blocks of 4,096 in order, each in eight interleaved sums added in order. */
export function sumOfSquares(values: Float32Array): number {
  const sums = new Float64Array(SUM_LANES);
  let total = 0;
  for (let block = 0; block < values.length; block += SUM_BLOCK) {
    const end = Math.min(values.length, block + SUM_BLOCK);
    sums.fill(0);
    for (let i = block; i < end; i++) sums[(i - block) % SUM_LANES]! += values[i]! * values[i]!;
    for (const sum of sums) total += sum;
  }
  return total;
}

function rotate(value: number, bits: number): number {
  return (value << bits) | (value >>> (32 - bits));
}

/** One word into a stream (body of MurmurHash3_x86_32). */
function absorb(hash: number, word: number): number {
  const mixed = Math.imul(rotate(Math.imul(word, 0xcc9e2d51), 15), 0x1b873593);
  return (Math.imul(rotate(hash ^ mixed, 13), 5) + 0xe6546b64) | 0;
}

function finish(hash: number): number {
  let h = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** 16 hex digits over the bits and lengths of the arrays, in order. */
export function digest(arrays: readonly Float32Array[]): string {
  const streams = Int32Array.from({ length: DIGEST_STREAMS }, (_, i) => Math.imul(i, 0x9e3779b9));
  for (const values of arrays) {
    const words = new Int32Array(values.buffer, values.byteOffset, values.length);
    streams[0] = absorb(streams[0]!, values.length);
    for (let i = 0; i < words.length; i++) {
      const stream = i % DIGEST_STREAMS;
      streams[stream] = absorb(streams[stream]!, words[i]!);
    }
  }
  let low = 0;
  let high = 0x5bd1e995;
  for (const stream of streams) {
    low = absorb(low, stream);
    high = absorb(high, finish(stream));
  }
  const hex = (word: number) => word.toString(16).padStart(8, '0');
  return hex(finish(high)) + hex(finish(low));
}
