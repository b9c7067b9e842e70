import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, tf } from '../../engine/index.ts';
import { clipLaneGradients, clipLogSumExps } from '../../worker/objectives/clip.ts';
import { siglipLaneGradients } from '../../worker/objectives/siglip.ts';

const SAMPLES = 300;
const WIDTH = 12;
const SCALE = 20;
const BIAS = -4;
/** Lanes of few rows are composed of stock ops, larger ones are the engine's kernels: the cut must not show. */
const SMALL = Array.from({ length: 6 }, (_, lane) => ({ begin: 50 * lane, count: 50 }));
const LARGE = [
  { begin: 0, count: 100 },
  { begin: 100, count: 200 },
];

describe('lanes of many rows', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: 'auto', threads: 1 });
  });
  afterAll(() => engine.close());

  function unitRows(name: string): tf.Tensor2D {
    const random = new RandomStream(5, name);
    return tf.tidy(() => {
      const x = tf.tensor2d(
        new Float32Array(SAMPLES * WIDTH).map(() => random.normal()),
        [SAMPLES, WIDTH],
      );
      return tf.div(x, tf.norm(x, 2, 1, true)) as tf.Tensor2D;
    });
  }

  /** Sums and gradients of all rows, lane by lane. */
  function clip(lanes: typeof SMALL): number[] {
    return tf.tidy(() => {
      const all = { image_ND: unitRows('image'), text_ND: unitRows('text') };
      const lse = { image: new Float32Array(SAMPLES), text: new Float32Array(SAMPLES) };
      for (const rows of lanes) {
        const out = new Float32Array(2 * rows.count);
        clipLogSumExps(engine, all, rows, SCALE, out);
        lse.image.set(out.subarray(0, rows.count), rows.begin);
        lse.text.set(out.subarray(rows.count), rows.begin);
      }
      const given = { imageLse_N: tf.tensor1d(lse.image), textLse_N: tf.tensor1d(lse.text) };
      const results = lanes.map((rows) => clipLaneGradients(engine, all, given, rows, SCALE));
      const sums = ['lossSum', 'dLogitScaleSum'] as const;
      return [
        ...sums.map((name) => results.reduce((sum, one) => sum + one[name], 0)),
        ...results.flatMap(({ dImage_RD }) => [...dImage_RD.dataSync()]),
        ...results.flatMap(({ dText_RD }) => [...dText_RD.dataSync()]),
      ];
    });
  }

  function siglip(lanes: typeof SMALL): number[] {
    return tf.tidy(() => {
      const all = { image_ND: unitRows('image'), text_ND: unitRows('text') };
      const results = lanes.map((rows) => siglipLaneGradients(engine, all, rows, SCALE, BIAS));
      const sums = ['lossSum', 'dLogitScaleSum', 'dLogitBiasSum', 'positiveSimilaritySum'] as const;
      return [
        ...sums.map((name) => results.reduce((sum, one) => sum + one[name], 0)),
        ...results.flatMap(({ dImage_RD }) => [...dImage_RD.dataSync()]),
        ...results.flatMap(({ dText_RD }) => [...dText_RD.dataSync()]),
      ];
    });
  }

  it.each([
    ['clip', clip],
    ['siglip', siglip],
  ])('have the sums and gradients of lanes of few: %s', (_name, of) => {
    const [few, many] = [of(SMALL), of(LARGE)];
    expect(many.length).toBe(few.length);
    const size = few.slice(4).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    few.forEach((value, i) => {
      expect(Math.abs(many[i]! - value), `number ${i}`).toBeLessThan(1e-5 * Math.max(size, Math.abs(value)));
    });
  });
});
