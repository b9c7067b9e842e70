import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createMixturePlan, type MixturePlanOptions } from '../../worker/data/mixture-plan.ts';
import { createPlan } from '../../worker/data/plan.ts';
import { Proportions } from '../../worker/data/proportions.ts';

const base: MixturePlanOptions = {
  parts: [
    { name: 'a', weight: 3, manifestSha256: 'a'.repeat(64), shardSampleCounts: [7, 3, 11, 5, 9, 2] },
    { name: 'b', weight: 1, manifestSha256: 'b'.repeat(64), shardSampleCounts: [4, 6] },
    { name: 'c', weight: 2, manifestSha256: 'c'.repeat(64), shardSampleCounts: [20, 1, 30] },
  ],
  seed: 1,
  globalBatch: 12,
  lanes: 4,
  blockShards: 2,
};
const SIZES = [37, 10, 51];
const FIRST = [0, 37, 47, 98];
const partOf = (index: number) => FIRST.findLastIndex((first) => first <= index);

/** Indices and showings of the steps [from, to), in order. */
function stream(options: MixturePlanOptions, from: number, to: number): { index: number; showing: number }[] {
  const plan = createMixturePlan(options);
  const found = [];
  for (let step = from; step < to; step++) {
    for (let lane = 0; lane < options.lanes; lane++) {
      const { sampleIndices, showings } = plan.laneSamples(step, lane);
      for (const [i, index] of sampleIndices.entries()) found.push({ index, showing: showings[i]! });
    }
  }
  return found;
}

const weightLists = fc.array(
  fc.oneof(fc.integer({ min: 1, max: 50 }), fc.double({ min: 0.001, max: 9, noNaN: true })),
  {
    minLength: 1,
    maxLength: 9,
  },
);

describe('Proportions', () => {
  it('gives each part its share of any first n positions, to within half a sample a level, each ordinal once', () => {
    fc.assert(
      fc.property(weightLists, (weights) => {
        const proportions = new Proportions(weights);
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        const slack = 0.5 * Math.ceil(Math.log2(weights.length) + 1) + 1e-3;
        const counts = weights.map(() => 0);
        let worst = 0;
        for (let position = 0; position < 1000; position++) {
          const { part, ordinal } = proportions.at(position);
          if (ordinal !== counts[part]!++) throw new Error(`ordinal ${ordinal} of part ${part} at ${position}`);
          for (const [i, weight] of weights.entries())
            worst = Math.max(worst, Math.abs(counts[i]! - ((position + 1) * weight) / total));
        }
        expect(worst).toBeLessThanOrEqual(slack);
      }),
      { numRuns: 40, seed: 4 },
    );
  });

  it('keeps whole and decimal weights exactly, and stays exact far out', () => {
    expect(new Proportions([3, 1]).weights).toEqual([3, 1]);
    expect(new Proportions([0.7, 0.3]).weights).toEqual([7, 3]);
    expect(new Proportions([0.25, 0.5, 0.25]).weights).toEqual([1, 2, 1]);
    const thirds = new Proportions([1 / 3, 2 / 3]).weights;
    expect(thirds[1]! / thirds[0]!).toBeCloseTo(2, 6);
    const far = new Proportions([7, 3]);
    const begin = 2 ** 45;
    // 2^45 mod 10 = 2: the pattern of ten repeats, with so many sevens and threes behind it.
    const pattern = (from: number) => Array.from({ length: 10 }, (_, i) => far.at(from + i));
    expect(pattern(begin).map(({ part }) => part)).toEqual(pattern(2).map(({ part }) => part));
    const before = (begin - 2) / 10;
    expect(pattern(begin).map(({ part, ordinal }) => ordinal - before * (part === 0 ? 7 : 3))).toEqual(
      pattern(2).map(({ ordinal }) => ordinal),
    );
  });
});

describe('createMixturePlan', () => {
  it('gives every batch its exact shares where they are whole, in every lane within one sample', () => {
    const plan = createMixturePlan(base);
    for (let step = 0; step < 60; step++) {
      const lanes = [0, 1, 2, 3].map((lane) => [...plan.laneSamples(step, lane).sampleIndices].map(partOf));
      const count = (parts: number[], part: number) => parts.filter((one) => one === part).length;
      expect([0, 1, 2].map((part) => count(lanes.flat(), part))).toEqual([6, 2, 4]);
      for (const lane of lanes)
        for (const part of [0, 1, 2]) {
          const exact = [1.5, 0.5, 1][part]!;
          expect(Math.abs(count(lane, part) - exact)).toBeLessThanOrEqual(1);
        }
    }
  });

  it('shows each sample once in every epoch of its dataset, each dataset at its own pace', () => {
    // 12 · 37 steps: 6 · 12 epochs of a, 2 · 12 · 37 / 10 of b, …
    const seen = stream(base, 0, 111);
    for (const part of [0, 1, 2]) {
      const own = seen.filter(({ index }) => partOf(index) === part);
      const size = SIZES[part]!;
      for (let epoch = 0; (epoch + 1) * size <= own.length; epoch++) {
        const shown = own.slice(epoch * size, (epoch + 1) * size);
        expect(shown.map(({ index }) => index - FIRST[part]!).sort((a, b) => a - b)).toEqual([...Array(size).keys()]);
        expect(new Set(shown.map(({ showing }) => showing))).toEqual(new Set([epoch]));
      }
      expect(own.length).toBe((111 * 12 * [3, 1, 2][part]!) / 6);
    }
  });

  it('gives the same global order however many lanes it is cut into', () => {
    const whole = stream({ ...base, lanes: 1 }, 0, 40);
    for (const lanes of [2, 3, 4, 6, 12]) expect(stream({ ...base, lanes }, 0, 40)).toEqual(whole);
  });

  it('reaches any step without the ones before it', () => {
    const walked = stream(base, 0, 200);
    expect(stream(base, 150, 200)).toEqual(walked.slice(150 * 12));
    const far = stream(base, 2 ** 33, 2 ** 33 + 2);
    expect(far).toHaveLength(24);
    for (const { index } of far) expect(index).toBeLessThan(98);
  });

  it('orders each dataset as it is ordered alone', () => {
    const [part] = base.parts;
    const alone = createPlan({ ...part!, seed: 1, globalBatch: 1, lanes: 1, blockShards: 2 });
    const own = stream(base, 0, 20)
      .map(({ index }) => index)
      .filter((index) => partOf(index) === 0);
    expect(own.slice(0, 37)).toEqual(Array.from({ length: 37 }, (_, i) => alone.sampleAt(0, i)));
  });

  it('depends on seed, weights and manifests, and on nothing else', () => {
    const reference = stream(base, 3, 9);
    expect(stream({ ...base, seed: 2 }, 3, 9)).not.toEqual(reference);
    const change = (part: object) => ({ ...base, parts: [{ ...base.parts[0]!, ...part }, ...base.parts.slice(1)] });
    expect(stream(change({ weight: 4 }), 3, 9)).not.toEqual(reference);
    expect(stream(change({ manifestSha256: 'd'.repeat(64) }), 3, 9)).not.toEqual(reference);
    expect(stream(change({ name: 'renamed' }), 3, 9)).toEqual(reference);
    expect(stream({ ...base, parts: base.parts.map((part) => ({ ...part, weight: part.weight * 10 })) }, 3, 9)).toEqual(
      reference,
    );
  });

  it('with replacement keeps the shares, repeats samples, and tells every draw from the others', () => {
    const options = { ...base, replacement: true };
    const seen = stream(options, 0, 300);
    expect(stream(options, 200, 300)).toEqual(seen.slice(200 * 12));
    const own = seen.filter(({ index }) => partOf(index) === 2);
    expect(own.length).toBe(1200);
    expect(new Set(own.slice(0, 51).map(({ index }) => index)).size).toBeLessThan(51);
    expect(new Set(own.map(({ showing }) => showing)).size).toBe(1200);
    // Uniform over 1200 draws from 51: 23.5 each, and a standard deviation of 4.8.
    const counts = Array.from({ length: 51 }, (_, i) => own.filter(({ index }) => index === FIRST[2]! + i).length);
    expect(Math.min(...counts)).toBeGreaterThan(4);
    expect(Math.max(...counts)).toBeLessThan(48);
  });

  it('names everything that is wrong with its options', () => {
    const parts = base.parts.map((part) => (part.name === 'b' ? { ...part, weight: 100 } : part));
    expect(() => createMixturePlan({ ...base, parts, lanes: 5, blockShards: 0 })).toThrow(
      /blockShards.*divide.*b has 10 samples.*11 of every batch/s,
    );
    expect(() => createMixturePlan({ ...base, parts, replacement: true })).not.toThrow();
  });

  it('keeps to its test vectors', () => {
    expect(stream(base, 4, 5).map(({ index }) => index)).toMatchInlineSnapshot(`
      [
        4,
        57,
        5,
        44,
        27,
        95,
        30,
        85,
        3,
        39,
        34,
        79,
      ]
    `);
    expect(stream({ ...base, replacement: true }, 4, 5).map(({ index }) => index)).toMatchInlineSnapshot(`
      [
        0,
        72,
        5,
        43,
        1,
        69,
        2,
        49,
        29,
        44,
        28,
        94,
      ]
    `);
  });
});

describe('createPlan with replacement', () => {
  it('draws from the blocks, tells draws apart, and is reached without the steps before', () => {
    const options = { ...base.parts[0]!, seed: 1, globalBatch: 12, lanes: 3, blockShards: 6, replacement: true };
    const plan = createPlan(options);
    const draws = Array.from({ length: 90 }, (_, step) => plan.laneSamples(step, 1));
    expect(createPlan(options).laneSamples(89, 1)).toEqual(draws[89]);
    const showings = draws.flatMap((one) => [...one.showings]);
    expect(new Set(showings).size).toBe(90 * 4);
    const counts = new Map<number, number>();
    for (const index of draws.flatMap((one) => [...one.sampleIndices])) counts.set(index, (counts.get(index) ?? 0) + 1);
    expect(counts.size).toBeGreaterThan(30);
    expect(Math.max(...counts.values())).toBeLessThan(30);
  });
});
