import { describe, expect, it } from 'vitest';
import { afterMeasurement, NO_ALARM, STD_RATIO_MIN } from '../../common/collapse.ts';
import { RandomStream } from '../../common/random.ts';
import { embeddingHealth } from '../../worker/eval/embedding-health.ts';

const D = 16;
const basis = Float32Array.from({ length: D * D }, (_, i) => (i % D === Math.floor(i / D) ? 1 : 0));

function gaussian(rows: number, width: number, seed: number): Float32Array {
  const random = new RandomStream('health', seed);
  return Float32Array.from({ length: rows * width }, () => random.normal());
}

describe('the health of embeddings', () => {
  it('is that of an orthonormal basis, to the closed forms', () => {
    const { measures, similarities } = embeddingHealth([{ name: 'z', width: D, rows_ND: basis, partners_ND: basis }]);
    expect(measures['z.effective_rank']).toBeCloseTo(D, 3);
    expect(measures['z.uniformity']).toBeCloseTo(-4, 6);
    expect(measures['z.mean_similarity']).toBe(0);
    expect(measures['z.alignment']).toBe(0);
    expect(measures['z.positive_similarity']).toBe(1);
    expect(measures['z.negative_similarity']).toBe(0);
    expect(measures['z.std_ratio']).toBeCloseTo(Math.sqrt((D - 1) / D), 6);
    const [positive, negative] = similarities;
    expect(positive).toMatchObject({ name: 'z.positive', low: -1, high: 1 });
    expect(positive!.counts.at(-1)).toBe(D);
    // A cosine of 0 begins the upper half.
    expect(negative!.counts[20]).toBe(D * (D - 1));
    expect(negative!.counts.reduce((a, b) => a + b)).toBe(D * (D - 1));
  });

  it('tells points on the whole sphere, in a plane and at one place apart', () => {
    const spread = gaussian(200, D, 1);
    const plane = gaussian(200, D, 2).map((value, i) => (i % D < 2 ? value : 0));
    const point = gaussian(200, D, 3).map((value, i) => (i % D === 0 ? 1 : 0) + 1e-4 * value);
    const { measures } = embeddingHealth([
      { name: 'spread', width: D, rows_ND: spread },
      { name: 'plane', width: D, rows_ND: plane },
      { name: 'point', width: D, rows_ND: point },
    ]);
    expect(measures['spread.std_ratio']).toBeGreaterThan(0.95);
    expect(measures['spread.effective_rank']).toBeGreaterThan(0.9 * D);
    expect(measures['plane.effective_rank']).toBeCloseTo(2, 1);
    expect(measures['point.effective_rank']).toBeLessThan(1.1);
    expect(measures['point.std_ratio']).toBeLessThan(0.001);
    expect(measures['point.uniformity']).toBeGreaterThan(-0.001);
    expect(measures['spread.uniformity']).toBeLessThan(-3);
    expect(measures['spread.alignment']).toBeUndefined();
  });

  it('has the rank of the rows where they are fewer than the dimensions', () => {
    const few = gaussian(6, 64, 4);
    const wide = embeddingHealth([{ name: 'z', width: 64, rows_ND: few }]).measures['z.effective_rank']!;
    expect(wide).toBeGreaterThan(5.5);
    expect(wide).toBeLessThanOrEqual(6.001);
  });
});

describe('the collapse alarm', () => {
  const measured = (value: number) => ({ 'z.std_ratio': value, 'z.effective_rank': 1 });

  it('is raised after three low measurements in a row and gone with the first that is not', () => {
    const low = STD_RATIO_MIN / 2;
    let alarm = NO_ALARM;
    const collapsed = [low, low, 0.5, low, low, low, low, 0.5].map((value) => {
      alarm = afterMeasurement(alarm, measured(value));
      return alarm.collapsed.join();
    });
    expect(collapsed).toEqual(['', '', '', '', '', 'z', 'z', '']);
  });

  it('names every embedding that is low by itself', () => {
    let alarm = NO_ALARM;
    for (let i = 0; i < 3; i++) alarm = afterMeasurement(alarm, { 'image.std_ratio': 0, 'text.std_ratio': 0.8 });
    expect(alarm.collapsed).toEqual(['image']);
  });
});
