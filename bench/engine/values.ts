/** Golden ratio in 32 bits: keeps the counters of neighbouring seeds apart. */
const SEED_STRIDE = 0x9e3779b9;

/**
 * Uniform values in [−bound, bound) that every side of the benchmark makes for itself (bench/peers/values.py is the same function):
 * a 32-bit hash of the position (Wellons 2018, "lowbias32"), so both sides hold the same bits and nothing is sent.
 */
export function hashValues(seed: number, count: number, bound: number): Float32Array {
  const values = new Float32Array(count);
  for (let i = 0; i < count; i++) values[i] = ((hash32(i, seed) / 2 ** 32) * 2 - 1) * bound;
  return values;
}

/** Whole numbers in [0, below), from the same hash. */
export function hashIntegers(seed: number, count: number, below: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => hash32(i, seed) % below);
}

function hash32(position: number, seed: number): number {
  let h = (position + Math.imul(seed, SEED_STRIDE)) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}
