import { describe, expect, it } from 'vitest';
import { AdamW, conv2d, loadEngine, relu, type Tensor4D, tf, toCompute, toFloat32 } from '../../engine/index.ts';
import { engineNames, hasTorch } from '../support/engines.ts';
import { checkAgainstPlain, checkGradients, checkHalf, type OpCase } from '../support/op-check.ts';

/** The shapes of a ResNet in small; odd sizes leave places at the edge that no window covers. */
const CASES: Record<string, OpCase> = {
  '1×1': { shapes: { x: [2, 5, 4, 19], w: [24, 19, 1, 1] }, run: ({ x, w }) => conv2d(x, w) },
  '1×1 with stride': { shapes: { x: [2, 7, 6, 16], w: [8, 16, 1, 1] }, run: ({ x, w }) => conv2d(x, w, { stride: 2 }) },
  '3×3': { shapes: { x: [2, 6, 5, 16], w: [32, 16, 3, 3] }, run: ({ x, w }) => conv2d(x, w, { padding: 1 }) },
  '3×3 with stride': {
    shapes: { x: [2, 8, 7, 17], w: [5, 17, 3, 3] },
    run: ({ x, w }) => conv2d(x, w, { stride: 2, padding: 1 }),
  },
  '7×7 over pixels': {
    shapes: { x: [1, 16, 18, 3], w: [16, 3, 7, 7] },
    run: ({ x, w }) => conv2d(x, w, { stride: 2, padding: 3 }),
  },
  'one place': { shapes: { x: [3, 1, 1, 8], w: [4, 8, 1, 1] }, run: ({ x, w }) => conv2d(x, w) },
  'one channel': { shapes: { x: [2, 6, 6, 1], w: [1, 1, 3, 3] }, run: ({ x, w }) => conv2d(x, w, { padding: 1 }) },
  'relu after it': {
    shapes: { x: [2, 5, 5, 4], w: [6, 4, 3, 3] },
    run: ({ x, w }) => relu(conv2d(x, w, { padding: 1 })),
  },
};

describe.skipIf(!hasTorch)('conv2d equals the composition of plain tfjs ops, in value and gradients', () => {
  it.each(Object.keys(CASES))('%s', (name) => checkAgainstPlain(CASES[name]!));
});

describe.each(engineNames)('gradients by central differences on %s', (engine) => {
  it.each(Object.keys(CASES))('conv2d %s', (name) => checkGradients(engine, CASES[name]!));
});

describe.skipIf(!hasTorch)('in bf16', () => {
  it.each(Object.keys(CASES))('conv2d %s stays within bf16 rounding of fp32', (name) =>
    // Operands are rounded to 8 bits, sums are not.
    checkHalf(CASES[name]!, 1.5e-2, { gradients: !name.includes('relu') }),
  );

  it.each([1, 3])('a convolution of side %d sees the weight that the optimiser wrote in place', async (size) => {
    const engine = await loadEngine({ engine: 'torch', threads: 1 });
    const weight = tf.tidy(() => tf.variable(tf.ones([8, 8, size, size]) as Tensor4D));
    const x = tf.ones([1, 4, 4, 8]) as Tensor4D;
    const sum = () => tf.tidy(() => tf.sum(toFloat32(conv2d(toCompute(x, 'bf16'), weight as Tensor4D))).dataSync()[0]!);
    const before = sum();
    const optimizer = new AdamW(engine, {
      parameters: [weight],
      weightDecays: [0],
      beta1: 0.9,
      beta2: 0.99,
      eps: 1e-8,
    });
    optimizer.step({ gradient: new Float32Array(weight.size).fill(1), gradientScale: 1, lr: 0.5 });
    // The first update of AdamW moves every weight by the learning rate.
    expect(sum()).toBeCloseTo(before / 2, 3);
    optimizer.dispose();
    tf.dispose([weight, x]);
  });
});
