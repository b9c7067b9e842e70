import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { createPlan, type PlanOptions } from '../../worker/data/plan.ts';

const manifestSha256 = 'a'.repeat(64);
const base: PlanOptions = {
  manifestSha256,
  shardSampleCounts: [7, 3, 11, 5, 9, 2],
  seed: 1,
  globalBatch: 8,
  lanes: 4,
  blockShards: 2,
};

const planOptions = fc
  .record({
    shardSampleCounts: fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 20 }),
    seed: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    lanes: fc.integer({ min: 1, max: 6 }),
    laneBatch: fc.integer({ min: 1, max: 5 }),
    blockShards: fc.integer({ min: 1, max: 8 }),
  })
  .map(({ laneBatch, ...rest }) => ({ ...rest, manifestSha256, globalBatch: laneBatch * rest.lanes }))
  .filter((options) => options.shardSampleCounts.reduce((a, b) => a + b) >= options.globalBatch);

function stepSamples(options: PlanOptions, step: number): number[] {
  const plan = createPlan(options);
  return Array.from({ length: options.lanes }, (_, lane) => [...plan.laneSamples(step, lane).sampleIndices]).flat();
}

describe('createPlan', () => {
  it('shows each sample at most once an epoch and drops fewer than a global batch', () => {
    fc.assert(
      fc.property(planOptions, fc.integer({ min: 0, max: 3 }), (options, epoch) => {
        const plan = createPlan(options);
        const seen: number[] = [];
        for (let i = 0; i < plan.stepsPerEpoch; i++) {
          for (let lane = 0; lane < options.lanes; lane++) {
            const samples = plan.laneSamples(epoch * plan.stepsPerEpoch + i, lane);
            expect(samples.epoch).toBe(epoch);
            seen.push(...samples.sampleIndices);
          }
        }
        expect(new Set(seen).size).toBe(seen.length);
        expect(Math.max(...seen)).toBeLessThan(plan.sampleCount);
        expect(plan.sampleCount - seen.length).toBeLessThan(options.globalBatch);
      }),
      { numRuns: 60, seed: 2 },
    );
  });

  it('gives the same global order however many lanes it is cut into', () => {
    const whole = { ...base, globalBatch: 12 };
    for (const step of [0, 1, 5, 40]) {
      const expected = stepSamples({ ...whole, lanes: 1 }, step);
      for (const lanes of [2, 3, 4, 6, 12]) expect(stepSamples({ ...whole, lanes }, step)).toEqual(expected);
    }
  });

  it('reaches any step without the ones before it', () => {
    const walked = createPlan(base);
    for (let step = 0; step < 200; step++) walked.laneSamples(step, 0);
    expect(walked.laneSamples(199, 3)).toEqual(createPlan(base).laneSamples(199, 3));
    expect(walked.laneSamples(0, 1)).toEqual(createPlan(base).laneSamples(0, 1));
  });

  it('mixes samples within blocks of shards and takes the blocks one after the other', () => {
    const plan = createPlan(base);
    const shardOfSample = base.shardSampleCounts.flatMap((count, shard) => Array<number>(count).fill(shard));
    const order = plan.shardOrder(0);
    const positions = Array.from({ length: plan.sampleCount }, (_, i) => shardOfSample[plan.sampleAt(0, i)]!);
    const firstBlock = base.shardSampleCounts[order[0]!]! + base.shardSampleCounts[order[1]!]!;
    expect(new Set(positions.slice(0, firstBlock))).toEqual(new Set([order[0]!, order[1]!]));
  });

  it('keeps (seed + 1, epoch) apart from (seed, epoch + 1)', () => {
    const epochOrder = (seed: number, epoch: number) => {
      const plan = createPlan({ ...base, seed });
      return Array.from({ length: plan.sampleCount }, (_, i) => plan.sampleAt(epoch, i));
    };
    expect(epochOrder(5, 1)).not.toEqual(epochOrder(6, 0));
    expect(epochOrder(5, 0)).not.toEqual(epochOrder(5, 1));
  });

  it('depends on the manifest', () => {
    expect(stepSamples({ ...base, manifestSha256: 'b'.repeat(64) }, 0)).not.toEqual(stepSamples(base, 0));
  });

  it('names everything that is wrong with its options', () => {
    expect(() => createPlan({ ...base, globalBatch: 100, lanes: 3, blockShards: 0 })).toThrow(
      /blockShards.*divide.*37 samples/s,
    );
  });

  it('keeps to its test vectors', () => {
    expect(stepSamples(base, 0)).toMatchInlineSnapshot(`
      [
        13,
        10,
        24,
        11,
        17,
        18,
        16,
        12,
      ]
    `);
    expect(stepSamples(base, 4)).toMatchInlineSnapshot(`
      [
        35,
        7,
        36,
        9,
        8,
        10,
        21,
        23,
      ]
    `);
    expect([...createPlan(base).shardOrder(3)]).toMatchInlineSnapshot(`
      [
        1,
        2,
        4,
        0,
        5,
        3,
      ]
    `);
  });
});
