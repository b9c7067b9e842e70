import { describe, expect, it } from 'vitest';
import { loadEngine, maxPool2d, tf } from '../../engine/index.ts';
import { engineNames, hasTorch } from '../support/engines.ts';
import { POOL_CASES as CASES } from '../support/op-cases.ts';
import { checkAgainstPlain, checkGradients, checkHalf, evaluate, randomInputs } from '../support/op-check.ts';

describe.skipIf(!hasTorch)('a fused kernel equals the composition of plain tfjs ops, in value and gradients', () => {
  it.each(Object.keys(CASES))('%s', (name) => checkAgainstPlain(CASES[name]!));

  it.each(Object.keys(CASES))('%s in bf16 stays within its rounding of fp32', async (name) => {
    const inputs = randomInputs(CASES[name]!.shapes);
    // Values that bf16 holds, so that the same element wins in both.
    for (const input of Object.values(inputs)) input.values = input.values.map((value) => Math.round(value * 16) / 16);
    await checkHalf(CASES[name]!, 8e-3, { inputs });
  });
});

describe.each(engineNames)('gradients by central differences on %s', (engine) => {
  it.each(Object.keys(CASES))('%s', (name) => checkGradients(engine, CASES[name]!));
});

describe.skipIf(!hasTorch)('maxPool2d on torch', () => {
  it('gives the gradient of equal values to the first, and lets NaN and −∞ through', async () => {
    await loadEngine({ engine: 'torch', threads: 1 });
    const equal = await evaluate(
      'torch',
      { x: { shape: [1, 2, 2, 1], values: new Float32Array(4).fill(7) } },
      ({ x }) => maxPool2d(x, { size: 2 }),
    );
    expect(Array.from(equal[1]!)).toEqual([1, 0, 0, 0]);
    const pooled = (values: number[]) =>
      tf.tidy(() => maxPool2d(tf.tensor4d(values, [1, 2, 2, 1]), { size: 2 }).dataSync()[0]);
    expect(pooled([1, Number.NaN, 3, 4])).toBeNaN();
    expect(pooled(Array(4).fill(Number.NEGATIVE_INFINITY))).toBe(Number.NEGATIVE_INFINITY);
  });
});
