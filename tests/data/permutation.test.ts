import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Permutation } from '../../worker/data/permutation.ts';

describe('Permutation', () => {
  it('visits every element exactly once, at any size and key', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1000 }), fc.integer(), (size, key) => {
        const permutation = new Permutation(size, key);
        const seen = new Set(Array.from({ length: size }, (_, i) => permutation.at(i)));
        expect(seen.size).toBe(size);
        for (const element of seen) expect(element >= 0 && element < size).toBe(true);
      }),
      { numRuns: 60, seed: 1 },
    );
  });

  it('stays inside the largest size, 2^32', () => {
    const permutation = new Permutation(2 ** 32, 'large');
    const seen = new Set(Array.from({ length: 2000 }, (_, i) => permutation.at(2 ** 32 - 1 - i)));
    expect(seen.size).toBe(2000);
    expect(Math.max(...seen)).toBeGreaterThan(2 ** 31);
  });

  // 8 rounds fail this at 5 and 6 elements.
  it.each([3, 5, 6, 8, 13])('puts each of %i elements at each place about equally often over keys', (size) => {
    const counts = new Float64Array(size * size);
    const keys = 8000;
    for (let key = 0; key < keys; key++) {
      const permutation = new Permutation(size, 'uniform', key);
      for (let i = 0; i < size; i++) counts[size * i + permutation.at(i)]!++;
    }
    const expected = keys / size;
    const sum = counts.reduce((total, count) => total + (count - expected) ** 2 / expected, 0);
    // Rows and columns of a permutation matrix each sum to 1, so (n-1)/n of the sum is chi-square with (n-1)^2 degrees of freedom.
    const degrees = (size - 1) ** 2;
    const chiSquare = (sum * (size - 1)) / size;
    // Wilson-Hilferty: the 99.9th percentile.
    const limit = degrees * (1 - 2 / (9 * degrees) + 3.09 * Math.sqrt(2 / (9 * degrees))) ** 3;
    expect(chiSquare).toBeLessThan(limit);
  });

  it('keeps to its test vectors', () => {
    const first = (size: number, ...key: (number | string)[]) =>
      Array.from({ length: Math.min(size, 8) }, (_, i) => new Permutation(size, ...key).at(i));
    expect(first(10, 'covey', 0)).toMatchInlineSnapshot(`
      [
        5,
        7,
        4,
        6,
        2,
        0,
        3,
        8,
      ]
    `);
    expect(first(1000, 'covey', 7)).toMatchInlineSnapshot(`
      [
        991,
        139,
        610,
        495,
        161,
        980,
        964,
        538,
      ]
    `);
    expect(first(2 ** 32, 'covey', 7)).toMatchInlineSnapshot(`
      [
        3312677713,
        2550103418,
        1653455183,
        3492256705,
        2313137609,
        1005031099,
        3671284285,
        1089422522,
      ]
    `);
  });
});
