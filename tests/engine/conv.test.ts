import { describe, expect, it } from 'vitest';
import { AdamW, conv2d, loadEngine, type Tensor4D, tf, toCompute, toFloat32 } from '../../engine/index.ts';
import { engineNames, hasTorch } from '../support/engines.ts';
import { CONV_CASES as CASES } from '../support/op-cases.ts';
import { checkAgainstPlain, checkGradients, checkHalf } from '../support/op-check.ts';

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
