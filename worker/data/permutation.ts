import { assert } from '../../common/errors.ts';
import { mixKey, threefry2x32 } from '../../common/random.ts';

/**
 * More than the 4 of Luby and Rackoff (1988): domains are often tiny, where few rounds show. Measured by how often each element
 * comes to each place: at 5 elements 8 rounds are still biased (chi-square 2.3 times what chance gives), 12 and more are not.
 */
const ROUNDS = 16;
const SIZE_MAX = 2 ** 32;

/**
 * A permutation of [0, size) that is computed, not stored: any position is found in O(1) time and memory, so a data order has
 * no state to save and nothing to replay on resume.
 *
 * A Feistel network over the smallest 2^b >= size, with Threefry-2x32-20 as the round function and cycle walking (Black and
 * Rogaway 2002, "Ciphers with Arbitrary Finite Domains"): values that land outside [0, size) are permuted again; since
 * 2^b < 2·size that takes fewer than two turns on average.
 *
 * Round r (0..15) of key (k0, k1), value v = left·2^h + right with h the width of `right`:
 * v ← right·2^(b-h) + (left xor (word 0 of threefry(k0, k1, r, right) mod 2^(b-h))), and h ← b - h. h starts at floor(b/2).
 * tests/data/permutation.test.ts holds test vectors.
 */
export class Permutation {
  readonly size: number;
  readonly #key: readonly [number, number];
  readonly #bits: number;
  readonly #block = new Uint32Array(2);

  /** `key` parts are mixed by hashing. `size` is at most 2^32. */
  constructor(size: number, ...key: readonly (number | string)[]) {
    assert(Number.isInteger(size) && size >= 1 && size <= SIZE_MAX, 'a permutation has 1 to 2^32 elements', { size });
    this.size = size;
    this.#key = mixKey(...key);
    this.#bits = size === 1 ? 0 : 32 - Math.clz32(size - 1);
  }

  /** The element at a position in [0, size). */
  at(position: number): number {
    assert(position >= 0 && position < this.size, 'position lies in the permutation', { position, size: this.size });
    if (this.#bits === 0) return 0;
    let value = position;
    do value = this.#encipher(value);
    while (value >= this.size);
    return value;
  }

  #encipher(input: number): number {
    const [k0, k1] = this.#key;
    let value = input;
    let rightBits = this.#bits >>> 1;
    for (let round = 0; round < ROUNDS; round++) {
      const leftBits = this.#bits - rightBits;
      const right = value & mask(rightBits);
      const left = value >>> rightBits;
      threefry2x32(k0, k1, round, right, this.#block);
      value = ((right << leftBits) | (left ^ (this.#block[0]! & mask(leftBits)))) >>> 0;
      rightBits = leftBits;
    }
    return value;
  }
}

/** The low `bits` ones; `bits` is at most 16 here. */
function mask(bits: number): number {
  return (1 << bits) - 1;
}
