// Every differentiable op of the engine with shapes for it: what tests compare between engines, devices and types.
import {
  type Activation,
  addLayerNorm,
  addTokenAndPosition,
  attention,
  type BatchNormOptions,
  batchNorm,
  conv2d,
  embedding,
  gelu,
  globalAveragePool,
  l2Normalize,
  layerNorm,
  linear,
  maxPool2d,
  mlp,
  quickGelu,
  relu,
  selectTokens,
  type Tensor2D,
  tf,
  toCompute,
  toFloat32,
} from '../../engine/index.ts';
import type { OpCase } from './op-check.ts';

const ids = [0, 3, 3, 1, 6, 0];

/** The ops of transformers. Widths that are no multiple of sixteen exercise the partial vectors. */
export const TOKEN_CASES: Readonly<Record<string, OpCase>> = {
  linear: { shapes: { x: [4, 6, 5], w: [8, 5], b: [8] }, run: ({ x, w, b }) => linear(x, w, b) },
  'linear without bias': { shapes: { x: [7, 20], w: [33, 20] }, run: ({ x, w }) => linear(x, w, null) },
  'linear over many rows': { shapes: { x: [2, 33, 24], w: [70, 24], b: [70] }, run: ({ x, w, b }) => linear(x, w, b) },
  mlp: mlpCase([3, 5, 7], 18, 'gelu'),
  'mlp with quickGelu': mlpCase([4, 3, 20], 33, 'quickGelu'),
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

function mlpCase(shape: number[], width: number, activation: Activation): OpCase {
  const inputs = shape.at(-1)!;
  // Sums as large as their terms, so that differences of them keep their digits.
  const scaled = (weight: Tensor2D) => tf.mul(weight, weight.shape[1] ** -0.5) as Tensor2D;
  return {
    shapes: { x: shape, hw: [width, inputs], hb: [width], ow: [inputs + 1, width], ob: [inputs + 1] },
    run: ({ x, hw, hb, ow, ob }) =>
      mlp(x, { weight: scaled(hw), bias: hb }, { weight: scaled(ow), bias: ob }, activation),
  };
}

export function batchNormCase(shape: number[], options: BatchNormOptions, residual = false): OpCase {
  const channels = shape.at(-1)!;
  return {
    shapes: { x: shape, weight: [channels], bias: [channels], ...(residual ? { residual: shape } : {}) },
    run: ({ x, weight, bias, residual: addend }) => {
      const statistic = (value: number) => tf.variable(tf.fill([channels], value), false);
      const state = { weight, bias, runningMean: statistic(0.3), runningVariance: statistic(2) };
      const y = batchNorm(x, state, addend ? { ...options, residual: addend } : options);
      state.runningMean.dispose();
      state.runningVariance.dispose();
      return y;
    },
  };
}

/** Widths that are no multiple of sixteen exercise the partial vectors; 3,000 rows of 40 make two blocks of rows. */
export const BATCH_NORM_CASES: Readonly<Record<string, OpCase>> = {
  training: batchNormCase([3, 5, 4, 19], { training: true }),
  'training with relu': batchNormCase([2, 4, 5, 16], { training: true, activation: 'relu' }),
  'training with residual': batchNormCase([2, 4, 5, 7], { training: true }, true),
  'training with residual and relu': batchNormCase([2, 5, 5, 21], { training: true, activation: 'relu' }, true),
  'over several blocks of rows': batchNormCase([3000, 40], { training: true, activation: 'relu', eps: 1e-3 }),
  'fixed statistics': batchNormCase([3, 4, 4, 18], { training: false }),
  'fixed statistics with residual and relu': batchNormCase([3, 4, 4, 8], { training: false, activation: 'relu' }, true),
};

/** The shapes of a ResNet in small; odd sizes leave places at the edge that no window covers. */
export const CONV_CASES: Readonly<Record<string, OpCase>> = {
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

export const POOL_CASES: Readonly<Record<string, OpCase>> = {
  'maxPool2d of ResNet': {
    shapes: { x: [2, 8, 7, 20] },
    run: ({ x }) => maxPool2d(x, { size: 3, stride: 2, padding: 1 }),
  },
  'maxPool2d without overlap': { shapes: { x: [1, 6, 7, 16] }, run: ({ x }) => maxPool2d(x, { size: 2 }) },
  'maxPool2d with much overlap': {
    shapes: { x: [1, 9, 9, 5] },
    run: ({ x }) => maxPool2d(x, { size: 5, stride: 1, padding: 2 }),
  },
  globalAveragePool: { shapes: { x: [3, 4, 5, 19] }, run: ({ x }) => globalAveragePool(x) },
  relu: { shapes: { x: [3, 37] }, run: ({ x }) => relu(x) },
};
