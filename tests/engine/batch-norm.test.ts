import { describe, expect, it } from 'vitest';
import { batchNorm, loadEngine, type Tensor1D, tf } from '../../engine/index.ts';
import { engineNames, hasTorch } from '../support/engines.ts';
import { batchNormCase, BATCH_NORM_CASES as CASES } from '../support/op-cases.ts';
import { checkAgainstPlain, checkGradients, checkHalf, evaluate, randomInputs } from '../support/op-check.ts';

describe.skipIf(!hasTorch)('batchNorm equals the composition of plain tfjs ops, in value and gradients', () => {
  it.each(Object.keys(CASES))('%s', (name) => checkAgainstPlain(CASES[name]!));
});

describe.each(engineNames)('gradients by central differences on %s', (engine) => {
  it.each(Object.keys(CASES).filter((name) => !name.includes('blocks')))('%s', (name) =>
    checkGradients(engine, CASES[name]!),
  );
});

describe.skipIf(!hasTorch)('on torch', () => {
  it.each(Object.keys(CASES))('%s in bf16 stays within its rounding of fp32', (name) =>
    checkHalf(CASES[name]!, 3e-2, { gradients: !name.includes('relu') && !name.includes('blocks') }),
  );

  it('has the same bits on one thread and on two', async () => {
    const { shapes, run } = CASES['over several blocks of rows']!;
    const inputs = randomInputs(shapes);
    const one = await evaluate('torch', inputs, run, 1);
    expect(await evaluate('torch', inputs, run, 2)).toEqual(one);
  });

  it('keeps its precision where the mean is far larger than the deviation', async () => {
    const inputs = randomInputs({ x: [5000, 16] });
    const values = inputs['x']!.values;
    for (let i = 0; i < values.length; i++) values[i] = 1000 + values[i]!;
    const { run } = batchNormCase([5000, 16], { training: true });
    const [y] = await evaluate('torch', inputs, ({ x }) => run({ x, weight: tf.ones([16]), bias: tf.zeros([16]) }));
    for (let c = 0; c < 16; c++) {
      const column = values.filter((_, i) => i % 16 === c);
      const mean = column.reduce((sum, value) => sum + value, 0) / column.length;
      const std = Math.sqrt(column.reduce((sum, value) => sum + (value - mean) ** 2, 0) / column.length);
      // fp32 holds the mean itself to 3e-5.
      expect(Math.abs(y![c]! - (column[0]! - mean) / std)).toBeLessThan(1e-4);
    }
  });
});

describe.each(engineNames)('running statistics on %s', (engine) => {
  it('follow PyTorch: the biased variance normalises, the unbiased one is remembered', async () => {
    await loadEngine({ engine, threads: 1 });
    const x = tf.tensor2d([1, 10, 2, 20, 6, 60], [3, 2]);
    const state = {
      weight: tf.ones([2]) as Tensor1D,
      bias: tf.zeros([2]) as Tensor1D,
      runningMean: tf.variable(tf.zeros([2]), false),
      runningVariance: tf.variable(tf.ones([2]), false),
    };
    tf.tidy(() => batchNorm(x, state, { training: true, momentum: 0.1 }));
    const read = (tensor: { dataSync(): ArrayLike<number> }) => Array.from(tensor.dataSync());
    // Means 3 and 30; sums of squares 14 and 1400, over 3 − 1.
    expect(read(state.runningMean)).toEqual([expect.closeTo(0.3, 6), expect.closeTo(3, 6)]);
    expect(read(state.runningVariance)).toEqual([expect.closeTo(0.9 + 0.7, 6), expect.closeTo(0.9 + 70, 4)]);
    tf.tidy(() => batchNorm(x, state, { training: false }));
    expect(read(state.runningMean)[0]).toBeCloseTo(0.3, 6);
    tf.dispose([x, state.weight, state.bias, state.runningMean, state.runningVariance]);
  });
});
