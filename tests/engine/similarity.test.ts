import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import { torchBackend } from '../../engine/backend/torch-backend.ts';
import { type Engine, loadEngine, type SimilarityKernels, similarityKernels, tf } from '../../engine/index.ts';

const WIDTH = 20;
const SCALE = 30;
const BIAS = -3;

function unitRows(rows: number, name: string): Float32Array {
  const random = new RandomStream(11, name);
  const values = new Float32Array(rows * WIDTH).map(() => random.normal());
  for (let begin = 0; begin < values.length; begin += WIDTH) {
    const row = values.subarray(begin, begin + WIDTH);
    const norm = Math.hypot(...row);
    row.forEach((value, i) => {
      row[i] = value / norm;
    });
  }
  return values;
}

/** Everything the kernels sum, in fp64, one pair after the other. */
function reference(query: Float32Array, keys: Float32Array, queryLse: Float32Array, keyLse: Float32Array) {
  const [rows, columns] = [query.length / WIDTH, keys.length / WIDTH];
  const zeros = (count: number) => new Float64Array(count);
  const sums = {
    lse: zeros(rows),
    weighted: zeros(query.length),
    logits: zeros(rows),
    negatives: zeros(query.length),
    sigmoid: zeros(rows),
    scaled: zeros(rows),
    loss: zeros(rows),
  };
  for (let i = 0; i < rows; i++) {
    let total = 0;
    for (let j = 0; j < columns; j++) {
      let logit = 0;
      for (let d = 0; d < WIDTH; d++) logit += SCALE * query[i * WIDTH + d]! * keys[j * WIDTH + d]!;
      total += Math.exp(logit);
      const weight = (Math.exp(logit - queryLse[i]!) + Math.exp(logit - keyLse[j]!)) / 2;
      const sigmoid = 1 / (1 + Math.exp(-logit - BIAS));
      sums.logits[i]! += weight * logit;
      sums.sigmoid[i]! += sigmoid;
      sums.scaled[i]! += sigmoid * logit;
      sums.loss[i]! += Math.log1p(Math.exp(-Math.abs(logit + BIAS))) + Math.max(0, logit + BIAS);
      for (let d = 0; d < WIDTH; d++) {
        sums.weighted[i * WIDTH + d]! += weight * keys[j * WIDTH + d]!;
        sums.negatives[i * WIDTH + d]! += sigmoid * keys[j * WIDTH + d]!;
      }
    }
    sums.lse[i] = Math.log(total);
  }
  return sums;
}

function computed(
  kernels: SimilarityKernels,
  inputs: readonly [Float32Array, Float32Array, Float32Array, Float32Array],
) {
  const [query, keys, queryLse, keyLse] = inputs;
  return tf.tidy(() => {
    const query_RD = tf.tensor2d(query, [query.length / WIDTH, WIDTH]);
    const keys_ND = tf.tensor2d(keys, [keys.length / WIDTH, WIDTH]);
    const weights = kernels.weights(query_RD, keys_ND, SCALE, tf.tensor1d(queryLse), tf.tensor1d(keyLse));
    const sigmoids = kernels.sigmoids(query_RD, keys_ND, SCALE, BIAS);
    const read = (x: tf.Tensor) => Float32Array.from(x.dataSync());
    return {
      lse: read(kernels.logSumExp(query_RD, keys_ND, SCALE)),
      weighted: read(weights.sum_RD),
      logits: read(weights.logits_R),
      negatives: read(sigmoids.keys_RD),
      sigmoid: read(sigmoids.sigmoid_R),
      scaled: read(sigmoids.scaled_R),
      loss: read(sigmoids.loss_R),
    };
  });
}

describe('sums over similarities', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await loadEngine({ engine: 'auto', threads: 1 });
  });
  afterAll(() => engine.close());

  // A tile is 256 rows by 512 keys, a strip 64 rows, a chunk 64 keys, a vector 16 floats.
  it.each([
    [3, 5, false],
    [256, 1024, false],
    [300, 2077, false],
    [257, 16, false],
    [17, 5000, true],
  ])('are those of a plain loop in fp64, of %i rows and %i keys, for any device: %s', (rows, keys, generic) => {
    const kernels = similarityKernels();
    if (!kernels) return;
    torchBackend().addon.setGeneric(generic);
    const inputs = [unitRows(rows, 'query'), unitRows(keys, 'keys')] as const;
    // Log-sum-exps as they are in a step: at least as large as any similarity of their row or column.
    const expected = reference(...inputs, new Float32Array(rows).fill(SCALE), new Float32Array(keys).fill(SCALE));
    const queryLse = Float32Array.from(expected.lse);
    const keyLse = new Float32Array(keys).map((_, j) => SCALE - (j % 7));
    const exact = reference(...inputs, queryLse, keyLse);
    const ours = computed(kernels, [...inputs, queryLse, keyLse]);
    torchBackend().addon.setGeneric(false);
    for (const [name, values] of Object.entries(ours)) {
      const theirs = exact[name as keyof typeof exact];
      const size = theirs.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const worst = values.reduce((most, value, i) => Math.max(most, Math.abs(value - theirs[i]!)), 0);
      expect(worst / size, name).toBeLessThan(5e-6);
    }
  });

  it('carry a broken embedding on as NaN instead of hiding it', () => {
    const kernels = similarityKernels();
    if (!kernels) return;
    const query = unitRows(2, 'query');
    query[0] = Number.NaN;
    const lse = [new Float32Array(2).fill(SCALE), new Float32Array(40).fill(SCALE)] as const;
    const ours = computed(kernels, [query, unitRows(40, 'keys'), ...lse]);
    for (const name of ['lse', 'logits', 'sigmoid', 'scaled', 'loss'] as const) {
      expect(ours[name][0], name).toBeNaN();
      expect(ours[name][1], name).not.toBeNaN();
    }
  });
});
