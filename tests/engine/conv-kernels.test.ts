import { beforeAll, describe, expect, it } from 'vitest';
import type { EngineName } from '../../engine/capabilities.ts';
import { fallbackUses, loadEngine, type Tensor, tf, toCompute, toFloat32 } from '../../engine/index.ts';
import { hasTorch } from '../support/engines.ts';
import { checkGradients, randomInputs, relativeDifference } from '../support/op-check.ts';

type Shape4D = [number, number, number, number];

/** Before and after every axis of NHWC. */
const SIDES: [[number, number], [number, number], [number, number], [number, number]] = [
  [0, 0],
  [0, 2],
  [1, 0],
  [0, 0],
];

/** Stock tfjs code over x and, where it has one, a filter w. tfjs-core's own specs cover the rest (`npm run conformance`). */
const CASES: Record<string, { x: number[]; w?: number[]; run: (x: any, w: any) => Tensor }> = {
  "conv2d 'same' with stride, padded on one side": {
    x: [2, 8, 8, 5],
    w: [3, 3, 5, 6],
    run: (x, w) => tf.conv2d(x, w, 2, 'same'),
  },
  'conv2d with padding of its own on every side': {
    x: [1, 6, 7, 3],
    w: [3, 3, 3, 4],
    run: (x, w) => tf.conv2d(x, w, 2, SIDES),
  },
  'conv2d of single pixels': { x: [2, 4, 5, 3], w: [1, 1, 3, 4], run: (x, w) => tf.conv2d(x, w, 1, 'valid') },
  'conv2d whose filter leaves pixels over': {
    x: [1, 8, 9, 2],
    w: [2, 3, 2, 4],
    run: (x, w) => tf.conv2d(x, w, 3, 'valid'),
  },
  'depthwise conv2d with a multiplier': {
    x: [2, 6, 5, 4],
    w: [3, 3, 4, 2],
    run: (x, w) => tf.depthwiseConv2d(x, w, 2, 'same'),
  },
  'conv2d with bias and relu6': {
    x: [2, 5, 5, 3],
    w: [3, 3, 3, 4],
    run: (x, w) =>
      tf.fused.conv2d({ x, filter: w, strides: 1, pad: 'same', bias: tf.tensor1d([1, -1, 2, 0]), activation: 'relu6' }),
  },
  'transposed conv2d': {
    x: [2, 4, 4, 6],
    w: [3, 3, 5, 6],
    run: (x, w) => tf.conv2dTranspose(x, w, [2, 8, 8, 5], 2, 'same'),
  },
  conv3d: { x: [1, 4, 5, 6, 2], w: [2, 3, 2, 2, 3], run: (x, w) => tf.conv3d(x, w, 2, 'same') },
  "maxPool 'same', padded on one side": { x: [2, 7, 8, 5], run: (x) => tf.maxPool(x, 3, 2, 'same') },
  "avgPool 'valid' over places that no window covers": { x: [2, 8, 8, 5], run: (x) => tf.avgPool(x, 3, 2, 'valid') },
  maxPool3d: { x: [1, 4, 6, 5, 3], run: (x) => tf.maxPool3d(x, 2, 2, 'same') },
  batchNorm: {
    x: [2, 3, 3, 4],
    run: (x) => tf.batchNorm(x, tf.tensor1d([1, 2, 3, 4]), tf.tensor1d([1, 2, 1, 3]), tf.ones([4]), tf.range(1, 5)),
  },
};

async function evaluate(engine: EngineName, name: string): Promise<Float32Array[]> {
  await loadEngine({ engine, threads: 1 });
  const { x, w, run } = CASES[name]!;
  const inputs = Object.values(randomInputs({ x, ...(w ? { w } : {}) }));
  return tf.tidy(() => {
    const tensors = inputs.map(({ values, shape }) => tf.tensor(values.slice(), shape));
    const weighted = (...args: Tensor[]) => {
      const y = run(args[0], args[1]);
      return tf.sum(tf.mul(y, tf.reshape(tf.cos(tf.range(0, y.size)), y.shape)));
    };
    const gradients = tf.grads(weighted)(tensors);
    return [run(tensors[0], tensors[1]), ...gradients].map((tensor) => tensor.dataSync<'float32'>());
  });
}

/** Compares value and gradients with those on cpu. Returns the kernels that the engine ran in JavaScript. */
async function differingFromCpu(engine: EngineName, name: string): Promise<string[]> {
  const plain = await evaluate('cpu', name);
  const before = new Map(fallbackUses().map(({ kernel, calls }) => [kernel, calls]));
  const found = await evaluate(engine, name);
  expect(found.length).toBe(plain.length);
  for (const [i, values] of found.entries()) expect(relativeDifference(plain[i]!, values)).toBeLessThan(2e-6);
  return fallbackUses().flatMap(({ kernel, calls }) => (calls === before.get(kernel) ? [] : [kernel]));
}

describe('stock tfjs convolutions on wasm', () => {
  const names = Object.keys(CASES).filter((name) => name.startsWith('conv2d'));
  it.each(names)('%s: value and gradients as on cpu, nothing in JavaScript', async (name) => {
    expect(await differingFromCpu('wasm', name)).toEqual([]);
  });
});

describe.skipIf(!hasTorch)('stock tfjs convolutions and pools on torch', () => {
  beforeAll(async () => void (await loadEngine({ engine: 'torch', threads: 1 })));

  it.each(Object.keys(CASES))('%s: value and gradients as on cpu, nothing in JavaScript', async (name) => {
    const fallbacks = await differingFromCpu('torch', name);
    expect(fallbacks.filter((kernel) => /conv|pool|norm/i.test(kernel))).toEqual([]);
  });

  // tfjs's own kernel divides by the whole window where its forward counts real places only: see tests/conformance/exclusions.json.
  it.each(['same', SIDES] as const)('avgPool padded by %j has the gradient of its own forward', (padding) =>
    checkGradients('torch', { shapes: { x: [2, 5, 6, 3] }, run: ({ x }) => tf.avgPool(x, 3, 2, padding as never) }),
  );

  it('multiply bf16 activations by fp32 filters in fp32, and by bf16 filters in bf16', async () => {
    await loadEngine({ engine: 'torch', threads: 1 });
    const { x, w } = randomInputs({ x: [1, 6, 6, 8], w: [3, 3, 8, 8] });
    const [full, mixed, half] = tf.tidy(() => {
      const images = tf.tensor4d(x!.values, x!.shape as Shape4D);
      const filter = tf.tensor4d(w!.values, w!.shape as Shape4D);
      const low = toCompute(images, 'bf16');
      return [
        tf.conv2d(toFloat32(low), filter, 1, 'same'),
        tf.conv2d(low, filter, 1, 'same'),
        toFloat32(tf.conv2d(low, toCompute(filter, 'bf16'), 1, 'same')),
      ].map((tensor) => tensor.dataSync<'float32'>());
    });
    expect(relativeDifference(full!, mixed!)).toBeLessThan(1e-6);
    expect(relativeDifference(full!, half!)).toBeLessThan(1.5e-2);
    expect(relativeDifference(full!, half!)).toBeGreaterThan(1e-5);
  });
});
