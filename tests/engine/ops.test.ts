import { beforeAll, describe, expect, it } from 'vitest';
import {
  addLayerNorm,
  addTokenAndPosition,
  attention,
  embedding,
  gelu,
  l2Normalize,
  layerNorm,
  linear,
  loadEngine,
  patchify,
  pixelsToTensor,
  quickGelu,
  selectTokens,
  tf,
  toCompute,
  toFloat32,
} from '../../engine/index.ts';
import { engineNames, hasTorch } from '../support/engines.ts';
import { checkAgainstPlain, checkGradients, checkHalf, type OpCase } from '../support/op-check.ts';

const ids = [0, 3, 3, 1, 6, 0];

/** Every op with the shapes of its differentiable inputs. Widths that are no multiple of sixteen exercise the partial vectors. */
const CASES: Record<string, OpCase> = {
  linear: { shapes: { x: [4, 6, 5], w: [8, 5], b: [8] }, run: ({ x, w, b }) => linear(x, w, b) },
  'linear without bias': { shapes: { x: [7, 20], w: [33, 20] }, run: ({ x, w }) => linear(x, w, null) },
  layerNorm: { shapes: { x: [3, 50, 37], w: [37], b: [37] }, run: ({ x, w, b }) => layerNorm(x, w, b, 1e-5) },
  addLayerNorm: {
    shapes: { x: [2, 40, 32], d: [2, 40, 32], w: [32], b: [32] },
    run: ({ x, d, w, b }) => {
      const { sum, normalised } = addLayerNorm(x, d, w, b, 1e-5);
      return tf.add(tf.mul(sum, 0.7), normalised);
    },
  },
  gelu: { shapes: { x: [5, 17] }, run: ({ x }) => gelu(tf.mul(x, 2)) },
  quickGelu: { shapes: { x: [5, 17] }, run: ({ x }) => quickGelu(tf.mul(x, 2)) },
  attention: { shapes: { qkv: [3, 17, 3 * 24] }, run: ({ qkv }) => attention(qkv, 3) },
  'causal attention': { shapes: { qkv: [2, 21, 3 * 64] }, run: ({ qkv }) => attention(qkv, 2, { causal: true }) },
  'attention over one token': {
    shapes: { qkv: [2, 1, 3 * 16] },
    run: ({ qkv }) => attention(qkv, 1, { causal: true }),
  },
  l2Normalize: { shapes: { x: [6, 19] }, run: ({ x }) => l2Normalize(x) },
  embedding: { shapes: { table: [7, 9] }, run: ({ table }) => embedding(table, tf.tensor2d(ids, [2, 3], 'int32')) },
  addTokenAndPosition: {
    shapes: { x: [3, 4, 18], token: [18], position: [5, 18] },
    run: ({ x, token, position }) => addTokenAndPosition(x, token, position),
  },
  'addTokenAndPosition without token': {
    shapes: { x: [3, 4, 18], position: [4, 18] },
    run: ({ x, position }) => addTokenAndPosition(x, null, position),
  },
  selectTokens: { shapes: { x: [3, 4, 5] }, run: ({ x }) => selectTokens(x, [3, 0, 2]) },
  'toCompute and back in fp32': { shapes: { x: [3, 4] }, run: ({ x }) => toFloat32(toCompute(x, 'fp32')) },
};

describe.skipIf(!hasTorch)('a fused kernel equals the composition of plain tfjs ops, in value and gradients', () => {
  it.each(Object.keys(CASES))('%s', (name) => checkAgainstPlain(CASES[name]!));
});

describe.each(engineNames)('gradients by central differences on %s', (engine) => {
  it.each(Object.keys(CASES).filter((name) => !name.includes('fp32')))('%s', (name) =>
    checkGradients(engine, CASES[name]!),
  );
});

describe.skipIf(!hasTorch)('in bf16', () => {
  beforeAll(async () => void (await loadEngine({ engine: 'torch', threads: 1 })));

  it.each([
    'linear',
    'layerNorm',
    'addLayerNorm',
    'gelu',
    'attention',
    'causal attention',
    'l2Normalize',
    'selectTokens',
  ])('%s stays within bf16 rounding of fp32, with fp32 parameter gradients', (name) => checkHalf(CASES[name]!, 3e-2));
});

describe.each(engineNames)('pixels on %s', (engine) => {
  beforeAll(async () => void (await loadEngine({ engine, threads: 1 })));

  it('are normalised per channel', () => {
    const options = { mean: [0.5, 0.4, 0.3], std: [0.2, 0.25, 0.5], precision: 'fp32' } as const;
    const values = tf.tidy(() => pixelsToTensor(new Uint8Array([0, 128, 255]), [1, 1, 1, 3], options).dataSync());
    const expected = [0 - 0.5, 128 / 255 - 0.4, 1 - 0.3].map((value, c) => value / options.std[c]!);
    for (const [c, value] of values.entries()) expect(value).toBeCloseTo(expected[c]!, 5);
  });

  it('are cut into patches in channel, row, column order', () => {
    const patches = tf.tidy(() => patchify(tf.reshape(tf.range(0, 4 * 4 * 3), [1, 4, 4, 3]), 2).arraySync());
    // Second patch: rows 0–1, columns 2–3; element (row, column, channel) is (row·4 + column)·3 + channel.
    expect(patches[0]![1]).toEqual([6, 9, 18, 21, 7, 10, 19, 22, 8, 11, 20, 23]);
  });

  it('that do not fit their shape are refused', () => {
    const options = { mean: [0, 0, 0], std: [1, 1, 1], precision: 'fp32' } as const;
    expect(() => pixelsToTensor(new Uint8Array(5), [1, 1, 1, 3], options)).toThrow(/does not fit 5 bytes/);
  });
});
