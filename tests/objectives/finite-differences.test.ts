import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { type Engine, loadEngine, tf } from '../../engine/index.ts';
import { keyGradients } from '../../worker/objectives/key-contrast.ts';
import { siglipLaneGradients } from '../../worker/objectives/siglip.ts';
import { viewBatch, viewGradients, viewLogSumExps } from '../../worker/objectives/view-contrast.ts';
import { autoEngines } from '../support/engines.ts';

const ROWS = 12;
const WIDTH = 5;
const H = 1e-5;
/** Where the lanes begin and end: uneven. */
const CUTS = [0, 1, 7, 12];

function unitRows(name: string): Float32Array {
  const random = new RandomStream(7, name);
  const values = new Float32Array(ROWS * WIDTH).map(() => random.normal());
  for (let begin = 0; begin < values.length; begin += WIDTH) {
    const row = values.subarray(begin, begin + WIDTH);
    const norm = Math.hypot(...row);
    for (const [i, value] of row.entries()) row[i] = value / norm;
  }
  return values;
}

function dot(a: ArrayLike<number>, i: number, b: ArrayLike<number>, j: number): number {
  let sum = 0;
  for (let d = 0; d < WIDTH; d++) sum += a[i * WIDTH + d]! * b[j * WIDTH + d]!;
  return sum;
}

/** The slope of `loss` along one value, in fp64. */
function slope(values: Float32Array, index: number, loss: (values: Float64Array) => number): number {
  const at = (step: number) => loss(Float64Array.from(values, (value, i) => (i === index ? value + step : value)));
  return (at(H) - at(-H)) / (2 * H);
}

/** Zhai et al. 2023, equation 1, times N, in fp64. */
function siglipLossSum(image: ArrayLike<number>, text: ArrayLike<number>, logScale: number, bias: number): number {
  let sum = 0;
  for (let i = 0; i < ROWS; i++) {
    for (let j = 0; j < ROWS; j++) {
      const sign = i === j ? 1 : -1;
      sum += Math.log1p(Math.exp(-sign * (Math.exp(logScale) * dot(image, i, text, j) + bias)));
    }
  }
  return sum;
}

/** Khosla et al. 2020, equation 2, in fp64. */
function supconLossSum(z: ArrayLike<number>, classes: ArrayLike<number>, temperature: number): number {
  let sum = 0;
  for (let i = 0; i < ROWS; i++) {
    const others = Array.from({ length: ROWS }, (_, j) => j).filter((j) => j !== i);
    const positives = others.filter((j) => classes[j] === classes[i]);
    const denominator = others.reduce((total, a) => total + Math.exp(dot(z, i, z, a) / temperature), 0);
    for (const p of positives) {
      sum -= (dot(z, i, z, p) / temperature - Math.log(denominator)) / positives.length;
    }
  }
  return sum;
}

/** He et al. 2020, equation 1, summed over queries, in fp64. A query's own key may lie among the others too, where it does not count. */
function keyLossSum(
  q: ArrayLike<number>,
  keys: ArrayLike<number>,
  others: ArrayLike<number>,
  temperature: number,
): number {
  let sum = 0;
  for (let i = 0; i < ROWS; i++) {
    const positive = Math.exp(dot(q, i, keys, i) / temperature);
    let denominator = positive;
    for (let j = 0; j < ROWS; j++) {
      if (others !== keys || j !== i) denominator += Math.exp(dot(q, i, others, j) / temperature);
    }
    sum -= Math.log(positive / denominator);
  }
  return sum;
}

const lanes = CUTS.slice(1).map((end, i) => ({ begin: CUTS[i]!, count: end - CUTS[i]! }));

describe.each(autoEngines)('on engine %s', (name) => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: name, threads: 1 });
  });
  afterAll(() => engine.close());

  /** SigLIP assembled lane by lane, as the workers do. */
  function siglip(image: Float32Array, text: Float32Array, logScale: number, bias: number) {
    const all = { image_ND: tf.tensor2d(image, [ROWS, WIDTH]), text_ND: tf.tensor2d(text, [ROWS, WIDTH]) };
    const dImage = new Float32Array(ROWS * WIDTH);
    const dText = new Float32Array(ROWS * WIDTH);
    const sums = { loss: 0, dLogScale: 0, dBias: 0 };
    for (const rows of lanes) {
      const part = siglipLaneGradients(engine, all, rows, Math.exp(logScale), bias);
      const own = (x: Float32Array) => x.subarray(rows.begin * WIDTH, (rows.begin + rows.count) * WIDTH);
      engine.readInto(part.dImage_RD, own(dImage));
      engine.readInto(part.dText_RD, own(dText));
      tf.dispose([part.dImage_RD, part.dText_RD]);
      sums.loss += part.lossSum;
      sums.dLogScale += part.dLogitScaleSum;
      sums.dBias += part.dLogitBiasSum;
    }
    tf.dispose([all.image_ND, all.text_ND]);
    return { ...sums, dImage, dText };
  }

  /** The contrast among views assembled lane by lane. */
  function contrast(z: Float32Array, classes: Int32Array, temperature: number) {
    const z_KD = tf.tensor2d(z, [ROWS, WIDTH]);
    const batch = viewBatch(z_KD, classes);
    const lse = new Float32Array(ROWS);
    for (const rows of lanes) {
      const lse_R = viewLogSumExps(batch, rows, temperature);
      engine.readInto(lse_R, lse.subarray(rows.begin, rows.begin + rows.count));
      lse_R.dispose();
    }
    const lse_K = tf.tensor1d(lse);
    const dz = new Float32Array(ROWS * WIDTH);
    let loss = 0;
    for (const rows of lanes) {
      const part = viewGradients(engine, batch, lse_K, rows, temperature);
      engine.readInto(part.dz_RD, dz.subarray(rows.begin * WIDTH, (rows.begin + rows.count) * WIDTH));
      part.dz_RD.dispose();
      loss += part.lossSum;
    }
    tf.dispose([z_KD, batch.class_K, batch.index_K, batch.positives_K, lse_K]);
    return { loss, dz };
  }

  it.each([
    { logScale: Math.log(10), bias: -10 },
    { logScale: 0.5, bias: 0.3 },
    { logScale: Math.log(100), bias: -20 },
  ])('SigLIP has the loss, and the slopes of the loss, of its paper: t′ $logScale, b $bias', ({ logScale, bias }) => {
    const [image, text] = [unitRows('image'), unitRows('text')];
    const ours = siglip(image, text, logScale, bias);
    expect(ours.loss / siglipLossSum(image, text, logScale, bias)).toBeCloseTo(1, 5);
    const scale = Math.exp(logScale);
    for (let index = 0; index < ROWS * WIDTH; index += 7) {
      const alongImage = slope(image, index, (moved) => siglipLossSum(moved, text, logScale, bias));
      const alongText = slope(text, index, (moved) => siglipLossSum(image, moved, logScale, bias));
      expect(Math.abs(ours.dImage[index]! - alongImage)).toBeLessThan(1e-5 * scale);
      expect(Math.abs(ours.dText[index]! - alongText)).toBeLessThan(1e-5 * scale);
    }
    const scalars = new Float32Array([0, 0]);
    const alongScale = slope(scalars, 0, ([s]) => siglipLossSum(image, text, logScale + s!, bias));
    const alongBias = slope(scalars, 1, ([, b]) => siglipLossSum(image, text, logScale, bias + b!));
    expect(Math.abs(ours.dLogScale - alongScale)).toBeLessThan(1e-5 * Math.max(1, Math.abs(alongScale)));
    expect(Math.abs(ours.dBias - alongBias)).toBeLessThan(1e-5 * Math.max(1, Math.abs(alongBias)));
  });

  it.each([
    { title: 'SimCLR: every picture a class of its own', classes: [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5] },
    { title: 'SupCon: classes of two, four and six views', classes: [0, 0, 1, 2, 2, 1, 2, 2, 1, 2, 2, 1] },
  ])('the contrast among views has the loss and its slopes. $title', ({ classes }) => {
    const z = unitRows('views');
    for (const temperature of [0.05, 0.1, 0.5]) {
      const ours = contrast(z, Int32Array.from(classes), temperature);
      expect(ours.loss / supconLossSum(z, classes, temperature)).toBeCloseTo(1, 5);
      for (let index = 0; index < ROWS * WIDTH; index += 7) {
        const expected = slope(z, index, (moved) => supconLossSum(moved, classes, temperature));
        expect(Math.abs(ours.dz[index]! - expected)).toBeLessThan(1e-5 / temperature);
      }
    }
  });

  it('SimCLR of one pair among equal views is the logarithm of the number of others', () => {
    const z = new Float32Array(ROWS * WIDTH).map((_, i) => (i % WIDTH === 0 ? 1 : 0));
    const { loss, dz } = contrast(z, Int32Array.from([0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5]), 0.1);
    expect(loss / ROWS).toBeCloseTo(Math.log(ROWS - 1), 5);
    expect(Math.max(...dz.map(Math.abs))).toBeLessThan(1e-4);
  });

  /** Queries against their keys and others, lane by lane. */
  function told(q: Float32Array, keys: Float32Array, others: Float32Array, temperature: number) {
    const [q_KD, keys_KD, others_KD] = [q, keys, others].map((x) => tf.tensor2d(x, [ROWS, WIDTH]));
    const dq = new Float32Array(ROWS * WIDTH);
    const sums = { loss: 0, similarity: 0, first: 0 };
    for (const { begin, count } of lanes) {
      const [q_RD, key_RD] = [q_KD!, keys_KD!].map((x) => tf.slice(x, [begin, 0], [count, WIDTH]));
      const ownRow = others === keys ? begin : undefined;
      const part = keyGradients(engine, { q_RD: q_RD!, key_RD: key_RD!, others_KD: others_KD!, ownRow }, temperature);
      engine.readInto(part.dq_RD, dq.subarray(begin * WIDTH, (begin + count) * WIDTH));
      tf.dispose([q_RD!, key_RD!, part.dq_RD]);
      sums.loss += part.lossSum;
      sums.similarity += part.positiveSimilaritySum;
      sums.first += part.firstCount;
    }
    tf.dispose([q_KD!, keys_KD!, others_KD!]);
    return { ...sums, dq };
  }

  it.each([
    { title: 'a queue', others: 'queue' },
    { title: 'all keys of the batch, their own aside', others: 'keys' },
  ])('MoCo tells a query from $title with the loss, and its slopes, of its paper', ({ others: from }) => {
    const [q, keys, others] = [
      unitRows('queries'),
      unitRows('keys'),
      from === 'keys' ? unitRows('keys') : unitRows(from),
    ];
    const pool = from === 'keys' ? keys! : others!;
    for (const temperature of [0.05, 0.2, 1]) {
      const ours = told(q!, keys!, pool, temperature);
      expect(ours.loss / keyLossSum(q!, keys!, pool, temperature)).toBeCloseTo(1, 5);
      for (let index = 0; index < ROWS * WIDTH; index += 7) {
        const expected = slope(q!, index, (moved) => keyLossSum(moved, keys!, pool, temperature));
        expect(Math.abs(ours.dq[index]! - expected)).toBeLessThan(1e-5 / temperature);
      }
      const rows = Array.from({ length: ROWS }, (_, i) => i);
      const similarity = rows.reduce((sum, i) => sum + dot(q!, i, keys!, i), 0);
      expect(ours.similarity / similarity).toBeCloseTo(1, 5);
      const first = rows.filter((i) =>
        rows.every((j) => (pool === keys && j === i) || dot(q!, i, pool, j) < dot(q!, i, keys!, i)),
      );
      expect(ours.first).toBe(first.length);
    }
  });

  it('MoCo keeps the digits of a loss near zero, and calls no query first where all keys are equal', () => {
    const one = new Float32Array(ROWS * WIDTH).map((_, i) => (i % WIDTH === 0 ? 1 : 0));
    const { loss } = told(
      one,
      one,
      one.map((x) => -x),
      0.1,
    );
    expect(loss / (ROWS * Math.log1p(ROWS * Math.exp(-20)))).toBeCloseTo(1, 4);
    const collapsed = told(one, one, one, 0.1);
    expect(collapsed.first).toBe(0);
    expect(collapsed.loss / ROWS).toBeCloseTo(Math.log(ROWS), 4);
  });

  it('leaves no tensor behind', () => {
    const before = tf.memory().numTensors;
    siglip(unitRows('image'), unitRows('text'), 1, -1);
    contrast(unitRows('views'), new Int32Array(ROWS), 0.1);
    expect(tf.memory().numTensors).toBe(before);
  });
});
