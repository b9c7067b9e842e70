import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, tf } from '../../engine/index.ts';
import { clipLaneGradients, clipLogSumExps } from '../../worker/objectives/clip.ts';
import { autoEngines } from '../support/engines.ts';

const ROWS = 12;
const WIDTH = 5;

function unitRows(name: string): Float32Array {
  const random = new RandomStream(7, name);
  const values = new Float32Array(ROWS * WIDTH).map(() => random.normal());
  for (let row = 0; row < ROWS; row++) {
    const slice = values.subarray(row * WIDTH, (row + 1) * WIDTH);
    const norm = Math.hypot(...slice);
    slice.forEach((value, i) => {
      slice[i] = value / norm;
    });
  }
  return values;
}

/** The textbook loss over the full N×N matrix in fp64, summed over rows (not divided by N). */
function textbookLossSum(image: ArrayLike<number>, text: ArrayLike<number>, logScale: number): number {
  const scale = Math.exp(logScale);
  const logit = (i: number, j: number) => {
    let dot = 0;
    for (let d = 0; d < WIDTH; d++) dot += image[i * WIDTH + d]! * text[j * WIDTH + d]!;
    return scale * dot;
  };
  const logSumExp = (values: number[]) => {
    const max = Math.max(...values);
    return max + Math.log(values.reduce((sum, value) => sum + Math.exp(value - max), 0));
  };
  let sum = 0;
  for (let i = 0; i < ROWS; i++) {
    const row = Array.from({ length: ROWS }, (_, j) => logit(i, j));
    const column = Array.from({ length: ROWS }, (_, j) => logit(j, i));
    sum += (logSumExp(row) + logSumExp(column)) / 2 - logit(i, i);
  }
  return sum;
}

describe.each(autoEngines)('clip objective on engine %s', (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
  });
  afterAll(() => engine.close());

  /** Loss and gradients assembled lane by lane, as the workers do. */
  function byLanes(image: Float32Array, text: Float32Array, logScale: number, cuts: readonly number[]) {
    const scale = Math.exp(logScale);
    const all = { image_ND: tf.tensor2d(image, [ROWS, WIDTH]), text_ND: tf.tensor2d(text, [ROWS, WIDTH]) };
    const lanes = cuts.slice(1).map((end, i) => ({ begin: cuts[i]!, count: end - cuts[i]! }));
    const imageLse = new Float32Array(ROWS);
    const textLse = new Float32Array(ROWS);
    for (const rows of lanes) {
      const out = new Float32Array(2 * rows.count);
      clipLogSumExps(engine, all, rows, scale, out);
      imageLse.set(out.subarray(0, rows.count), rows.begin);
      textLse.set(out.subarray(rows.count), rows.begin);
    }
    const lse = { imageLse_N: tf.tensor1d(imageLse), textLse_N: tf.tensor1d(textLse) };
    const dImage = new Float32Array(ROWS * WIDTH);
    const dText = new Float32Array(ROWS * WIDTH);
    let lossSum = 0;
    let dLogScale = 0;
    for (const rows of lanes) {
      const part = clipLaneGradients(engine, all, lse, rows, scale);
      lossSum += part.lossSum;
      dLogScale += part.dLogitScaleSum;
      engine.readInto(part.dImage_RD, dImage.subarray(rows.begin * WIDTH, (rows.begin + rows.count) * WIDTH));
      engine.readInto(part.dText_RD, dText.subarray(rows.begin * WIDTH, (rows.begin + rows.count) * WIDTH));
      tf.dispose([part.dImage_RD, part.dText_RD]);
    }
    tf.dispose([all.image_ND, all.text_ND, lse.imageLse_N, lse.textLse_N]);
    return { lossSum, dLogScale, dImage, dText };
  }

  it('equals the textbook loss over the full matrix, with uneven lanes too', () => {
    const [image, text] = [unitRows('image'), unitRows('text')];
    for (const logScale of [0, Math.log(1 / 0.07), Math.log(100)]) {
      const expected = textbookLossSum(image, text, logScale);
      for (const cuts of [
        [0, 12],
        [0, 4, 8, 12],
        [0, 1, 7, 12],
      ]) {
        expect(byLanes(image, text, logScale, cuts).lossSum / expected).toBeCloseTo(1, 5);
      }
    }
  });

  it('has the gradient that finite differences of the textbook loss give, logit scale included', () => {
    const [image, text] = [unitRows('image'), unitRows('text')];
    const logScale = 1.3;
    const ours = byLanes(image, text, logScale, [0, 5, 12]);
    const h = 1e-5;
    const slope = (values: Float32Array, index: number, loss: (values: Float64Array) => number) => {
      const moved = Float64Array.from(values);
      moved[index] = values[index]! + h;
      const up = loss(moved);
      moved[index] = values[index]! - h;
      return (up - loss(moved)) / (2 * h);
    };
    for (let index = 0; index < ROWS * WIDTH; index += 7) {
      expect(ours.dImage[index]).toBeCloseTo(
        slope(image, index, (moved) => textbookLossSum(moved, text, logScale)),
        4,
      );
      expect(ours.dText[index]).toBeCloseTo(
        slope(text, index, (moved) => textbookLossSum(image, moved, logScale)),
        4,
      );
    }
    const up = textbookLossSum(image, text, logScale + h);
    const down = textbookLossSum(image, text, logScale - h);
    expect(ours.dLogScale).toBeCloseTo((up - down) / (2 * h), 4);
  });

  it('leaves no tensor behind', () => {
    const before = tf.memory().numTensors;
    byLanes(unitRows('image'), unitRows('text'), 1, [0, 6, 12]);
    expect(tf.memory().numTensors).toBe(before);
  });
});
