import type { ModifiedResnetConfig } from '../../common/config/vision-config.ts';
import {
  linear,
  moduleScope,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type Tensor4D,
  tf,
  toCompute,
  toFloat32,
} from '../../engine/index.ts';
import { product } from '../clip/block-cost.ts';
import type { ParameterLookup } from '../clip/transformer.ts';
import { attendOnce } from './attention-pool.ts';
import type { Backbone, BackboneCost } from './backbone.ts';
import { type ConvolutionShape, convolutionsCost } from './convolution-cost.ts';
import { lastSide, lastWidth, modifiedResnetBlocks, modifiedResnetParameterSpecs } from './modified-resnet-shapes.ts';
import { underVisual, visualContext } from './resnet-backbone.ts';
import { type ConvolutionContext, consumed, convolve } from './resnet-forward.ts';
import { type BlockShape, hasDownsample, runningSpecsOf } from './resnet-shapes.ts';

/**
 * CLIP's ResNet (Radford et al. 2021, §2.4) to open_clip's numerics: three convolutions and a mean pool in the stem, every stride a mean pool
 * before a convolution of stride 1, and attention pooling with the mean as its query. The feature is the pool's result before its output
 * projection, which is what CLIP projects with.
 */
export function modifiedResnetBackbone(vision: ModifiedResnetConfig): Backbone {
  return {
    imageSize: vision.imageSize,
    featureWidth: lastWidth(vision),
    batchNormPlaces: lastSide(vision) ** 2,
    parameterSpecs: (embedDim) => underVisual(modifiedResnetParameterSpecs(vision, embedDim)),
    bufferSpecs: () => underVisual(runningSpecsOf(modifiedResnetParameterSpecs(vision, undefined))),
    features: (x_BHWC, tower) => modifiedResnetFeatures([x_BHWC], vision, visualContext(tower, [tower.parameter]))[0]!,
    featuresTogether: (xs, towers) => modifiedResnetFeatures(xs, vision, visualContext(towers, towers.lookups)),
    project: (features_BF, parameter) =>
      moduleScope('projection', () => dense(features_BF, 'visual.attnpool.c_proj', parameter)),
    cost: () => modifiedResnetCost(vision),
  };
}

/** @param xs normalised pixels [B,H,W,3] @returns float32 [B, lastWidth] each */
export function modifiedResnetFeatures(
  xs: readonly Tensor4D[],
  config: ModifiedResnetConfig,
  context: ConvolutionContext,
): Tensor2D[] {
  return tf.tidy(() => {
    let ys = moduleScope('stem', () => tf.tidy(() => stem(xs, context)));
    for (const block of modifiedResnetBlocks(config)) {
      ys = consumed(ys, block.name, (inputs) => bottleneck(inputs, block, context));
    }
    const heads = lastWidth(config) / config.headWidth;
    return moduleScope('attention pool', () =>
      ys.map((y, lane) => attentionPool2d(y, context.parameters[lane]!, heads)),
    );
  });
}

function stem(xs: readonly Tensor4D[], context: ConvolutionContext): Tensor4D[] {
  let ys = xs.map((x) => toCompute(x, context.precision));
  for (const i of [1, 2, 3]) {
    const stride = i === 1 ? 2 : 1;
    ys = context.normalise(convolve(ys, `conv${i}`, context, { stride, padding: 1 }), `bn${i}`, { activation: 'relu' });
  }
  return meanPool(ys, 2);
}

function bottleneck(xs: readonly Tensor4D[], block: BlockShape, context: ConvolutionContext): Tensor4D[] {
  const { name, stride } = block;
  const { normalise } = context;
  const relu = { activation: 'relu' } as const;
  const shortcuts = hasDownsample(block)
    ? normalise(convolve(meanPool(xs, stride), `${name}.downsample.0`, context), `${name}.downsample.1`)
    : xs;
  const narrow = normalise(convolve(xs, `${name}.conv1`, context), `${name}.bn1`, relu);
  const hidden = normalise(convolve(narrow, `${name}.conv2`, context, { padding: 1 }), `${name}.bn2`, relu);
  const pooled = meanPool(hidden, stride);
  return normalise(convolve(pooled, `${name}.conv3`, context), `${name}.bn3`, { ...relu, residuals: shortcuts });
}

function meanPool(xs: readonly Tensor4D[], size: number): Tensor4D[] {
  return size === 1 ? [...xs] : xs.map((x) => tf.avgPool(x, size, size, 'valid'));
}

/** open_clip's `AttentionPool2d`: the mean of all places asks, the mean and all places answer. */
function attentionPool2d(x_BHWC: Tensor4D, parameter: ParameterLookup, heads: number): Tensor2D {
  return tf.tidy(() => {
    const [batch, height, width, channels] = x_BHWC.shape;
    const places_BNC = tf.reshape(toFloat32(x_BHWC), [batch, height * width, channels]);
    const mean_B1C = tf.mean(places_BNC, 1, true);
    const positions_TC = parameter<Tensor2D>('attnpool.positional_embedding');
    const x_BTC = tf.add(tf.concat([mean_B1C, places_BNC], 1), positions_TC);
    const query_BC = tf.reshape(tf.slice(x_BTC, [0, 0, 0], [batch, 1, channels]), [batch, channels]);
    const [q_BC, k_BTC, v_BTC] = [
      dense(query_BC as Tensor2D, 'attnpool.q_proj', parameter),
      dense(x_BTC, 'attnpool.k_proj', parameter),
      dense(x_BTC, 'attnpool.v_proj', parameter),
    ];
    return attendOnce(q_BC as Tensor2D, k_BTC!, v_BTC!, heads);
  });
}

function dense<T extends Tensor>(x: T, name: string, parameter: ParameterLookup): T {
  return linear(x, parameter<Tensor2D>(`${name}.weight`), parameter<Tensor1D>(`${name}.bias`)) as T;
}

function modifiedResnetCost(config: ModifiedResnetConfig): BackboneCost {
  const { imageSize, width } = config;
  const half = imageSize / 2;
  const all: ConvolutionShape[] = [
    { side: half, inputs: 3, outputs: width / 2, size: 3 },
    { side: half, inputs: width / 2, outputs: width / 2, size: 3 },
    { side: half, inputs: width / 2, outputs: width, size: 3 },
  ];
  let side = imageSize / 4;
  for (const block of modifiedResnetBlocks(config)) {
    const { inputs, width: inner, outputs, stride } = block;
    const out = side / stride;
    if (hasDownsample(block)) all.push({ side: out, inputs, outputs, size: 1 });
    all.push({ side, inputs, outputs: inner, size: 1 }, { side, inputs: inner, outputs: inner, size: 3 });
    all.push({ side: out, inputs: inner, outputs, size: 1 });
    side = out;
  }
  const cost = convolutionsCost(all);
  const pooled = lastWidth(config);
  const tokens = lastSide(config) ** 2 + 1;
  const pool = product(2 * tokens + 1, pooled, pooled) + 2 * product(tokens, pooled, 1);
  return {
    forwardFlops: cost.forwardFlops + pool,
    backwardFlops: cost.backwardFlops + 2 * pool,
    activationFloats: cost.activationFloats + 4 * tokens * pooled,
  };
}
