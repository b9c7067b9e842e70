/**
 * Counter-based randomness: a value is a pure function of (key, counter), so any position is reached in O(1) and nothing
 * has to be saved. Threefry-2x32-20 (Salmon et al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3"), tested against
 * the Random123 known-answer vectors.
 */

/** Bump when any stream's values change: stored in every checkpoint and checked on resume. */
export const RNG_VERSION = 1;

const ROTATIONS = [13, 15, 26, 6, 17, 29, 16, 24] as const;
const KEY_PARITY = 0x1bd11bda;

/** One block: writes two 32-bit words for key (k0, k1) and counter (c0, c1) into `out`. */
export function threefry2x32(k0: number, k1: number, c0: number, c1: number, out: Uint32Array): void {
  const keys = [k0 | 0, k1 | 0, KEY_PARITY ^ k0 ^ k1] as const;
  let x0 = (c0 + keys[0]) | 0;
  let x1 = (c1 + keys[1]) | 0;
  for (let round = 0; round < 20; round++) {
    const rotation = ROTATIONS[round % 8]!;
    x0 = (x0 + x1) | 0;
    x1 = ((x1 << rotation) | (x1 >>> (32 - rotation))) ^ x0;
    if (round % 4 === 3) {
      const injection = (round + 1) / 4;
      x0 = (x0 + keys[injection % 3]!) | 0;
      x1 = (x1 + keys[(injection + 1) % 3]! + injection) | 0;
    }
  }
  out[0] = x0;
  out[1] = x1;
}

/** Mixes any sequence of integers and strings into a 64-bit key by hashing, never by adding. */
export function mixKey(...parts: readonly (number | string)[]): readonly [number, number] {
  const state = new Uint32Array([0x243f6a88, 0x85a308d3]);
  const absorb = (low: number, high: number) => threefry2x32(state[0]!, state[1]!, low | 0, high | 0, state);
  for (const part of parts) {
    if (typeof part === 'number') {
      absorb(part % 2 ** 32, Math.floor(part / 2 ** 32));
    } else {
      // The length first, so that ("ab","c") and ("a","bc") differ.
      absorb(part.length, 0x73747200);
      for (let i = 0; i < part.length; i += 2) absorb(part.charCodeAt(i), part.charCodeAt(i + 1) || 0);
    }
  }
  return [state[0]!, state[1]!];
}

/** A stream of draws under one key. Two streams with the same parts give the same draws, whoever asks. */
export class RandomStream {
  readonly #k0: number;
  readonly #k1: number;
  readonly #block = new Uint32Array(2);
  #counter = 0;
  #spare: number | undefined;

  constructor(...parts: readonly (number | string)[]) {
    [this.#k0, this.#k1] = mixKey(...parts);
  }

  /** Uniform 32-bit unsigned integer. */
  uint32(): number {
    const word = this.#counter & 1;
    if (word === 0) {
      const block = this.#counter / 2;
      threefry2x32(this.#k0, this.#k1, block | 0, Math.floor(block / 2 ** 32), this.#block);
    }
    this.#counter++;
    return this.#block[word]!;
  }

  /** Uniform in [0, 1) with 32 bits. */
  uniform(low = 0, high = 1): number {
    return low + (high - low) * (this.uint32() / 2 ** 32);
  }

  /** Uniform integer in [0, n). */
  integer(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  /** Standard normal (Box–Muller; both values of a pair are used). */
  normal(mean = 0, std = 1): number {
    if (this.#spare !== undefined) {
      const value = this.#spare;
      this.#spare = undefined;
      return mean + std * value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    const angle = 2 * Math.PI * this.uniform();
    this.#spare = radius * Math.sin(angle);
    return mean + std * radius * Math.cos(angle);
  }
}
