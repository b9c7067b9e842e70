import { describe, expect, it } from 'vitest';
import { loadEngine, tf } from '../../engine/index.ts';
import { hasTorch } from '../support/engines.ts';

type Op = (...inputs: tf.Tensor[]) => tf.Tensor;
const op = (name: string) => (tf as unknown as Record<string, Op>)[name]!;

const UNARY = [
  'abs',
  'acos',
  'acosh',
  'asin',
  'asinh',
  'atan',
  'atanh',
  'ceil',
  'cos',
  'cosh',
  'elu',
  'erf',
  'exp',
  'expm1',
  'floor',
  'isFinite',
  'isInf',
  'isNaN',
  'leakyRelu',
  'log',
  'log1p',
  'logicalNot',
  'logSigmoid',
  'neg',
  'onesLike',
  'reciprocal',
  'relu',
  'relu6',
  'round',
  'rsqrt',
  'selu',
  'sigmoid',
  'sign',
  'sin',
  'sinh',
  'softmax',
  'logSoftmax',
  'softplus',
  'sqrt',
  'square',
  'step',
  'tan',
  'tanh',
  'zerosLike',
  'transpose',
  'diag',
  'reverse',
];
const BINARY = [
  'add',
  'sub',
  'mul',
  'div',
  'divNoNan',
  'floorDiv',
  'mod',
  'pow',
  'maximum',
  'minimum',
  'squaredDifference',
  'atan2',
  'bitwiseAnd',
  'equal',
  'notEqual',
  'greater',
  'greaterEqual',
  'less',
  'lessEqual',
  'logicalAnd',
  'logicalOr',
  'logicalXor',
  'prelu',
  'dot',
  'concat',
  'stack',
];
const REDUCTIONS = [
  'sum',
  'mean',
  'max',
  'min',
  'prod',
  'all',
  'any',
  'argMax',
  'argMin',
  'cumsum',
  'cumprod',
  'logSumExp',
];
const DTYPES = ['float32', 'int32', 'bool'] as const;
type Dtype = (typeof DTYPES)[number];

const SAMPLES = {
  float32: [-2.5, -1, -0.5, 0, 0.25, 0.5, 1, 3.5],
  int32: [-3, -2, -1, 0, 1, 2, 3, 9],
  bool: [0, 1, 1, 0, 1, 0, 1, 1],
};
const OTHERS = {
  float32: [2, -0.5, 1.5, 3, -1, 2, 0.5, 1],
  int32: [2, 3, -2, 5, 1, -1, 2, 2],
  bool: [1, 1, 0, 0, 1, 0, 1, 0],
};
const sample = (dtype: Dtype) => tf.tensor2d(SAMPLES[dtype], [2, 4], dtype);
const other = (dtype: Dtype) => tf.tensor2d(OTHERS[dtype], [2, 4], dtype);

interface Outcome {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly values: readonly number[];
}

/** Undefined where the engine refuses. */
async function outcome(engine: 'cpu' | 'torch', run: () => tf.Tensor): Promise<Outcome | undefined> {
  await loadEngine({ engine, threads: 1 });
  let found: Outcome | undefined;
  tf.tidy(() => {
    try {
      const result = run();
      found = { dtype: result.dtype, shape: [...result.shape], values: Array.from(result.dataSync()) };
    } catch {
      // A type that tfjs does not take for this op; what tfjs takes, the test asks of ours.
    }
  });
  return found;
}

async function compare(run: () => tf.Tensor): Promise<void> {
  const wanted = await outcome('cpu', run);
  if (wanted === undefined) return;
  const found = await outcome('torch', run);
  expect({ ...found, values: [] }).toEqual({ ...wanted, values: [] });
  for (const [at, value] of found!.values.entries()) {
    // tfjs's JavaScript kernels leave other bytes than 0 and 1 in truth values; which are true is what counts.
    const expected = wanted.dtype === 'bool' ? Number(wanted.values[at] !== 0) : wanted.values[at]!;
    const same = Object.is(value, expected) || Math.abs(value - expected) <= 1e-5 * Math.max(1, Math.abs(value));
    expect(same, `element ${at}: ${value}, tfjs has ${expected}`).toBe(true);
  }
}

describe.skipIf(!hasTorch).each(DTYPES)('types and values are tfjs’s for %s', (dtype) => {
  const x = () => sample(dtype);
  // Of truth values tfjs's JavaScript kernels take these two in 8 bits, and find infinities.
  const sensible = (name: string) => dtype !== 'bool' || !['logSoftmax', 'logSumExp'].includes(name);
  it.each(UNARY.filter(sensible))('%s', (name) => compare(() => op(name)(x())));
  it.each(BINARY)('%s', (name) => compare(() => op(name)(x(), other(dtype))));
  it.each(REDUCTIONS.filter(sensible))('%s', (name) => compare(() => op(name)(x(), 1 as never)));
  it('clipping, choosing, padding, casting', async () => {
    await compare(() => tf.clipByValue(x(), 0, 1));
    await compare(() => tf.where(sample('bool'), x(), other(dtype)));
    await compare(() => tf.addN([x(), other(dtype)]));
    await compare(() =>
      tf.pad(
        x(),
        [
          [1, 0],
          [0, 2],
        ],
        1,
      ),
    );
    await compare(() => tf.matMul(x(), tf.transpose(other(dtype))));
    await compare(() => tf.gather(x(), tf.tensor1d([1, 0], 'int32'), 1));
    await compare(() => tf.topk(x(), 2).values);
    await compare(() => tf.tile(x(), [2, 1]));
    for (const target of DTYPES) await compare(() => tf.cast(x(), target));
  });
});
