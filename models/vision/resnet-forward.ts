import {
  conv2d,
  globalAveragePool,
  maxPool2d,
  moduleScope,
  type Precision,
  type Tensor2D,
  type Tensor4D,
  tf,
  toCompute,
} from '../../engine/index.ts';
import type { ParameterLookup } from '../clip/transformer.ts';
import type { BatchNormLayer } from './batch-norm-layer.ts';
import { type BlockShape, hasDownsample, type ResNetConfig, resNetBlocks } from './resnet-shapes.ts';

/**
 * What a ResNet's layers work with. They run over a list of tensors: one per lane that is computed at the same time, each with its own
 * leaves for the parameters, meeting only in `normalise`.
 */
export interface ConvolutionContext {
  readonly parameters: readonly ParameterLookup[];
  readonly normalise: BatchNormLayer;
  readonly precision: Precision;
}

export function convolve(
  xs: readonly Tensor4D[],
  name: string,
  { parameters }: ConvolutionContext,
  options: { readonly stride?: number; readonly padding?: number } = {},
): Tensor4D[] {
  return xs.map((x, lane) => conv2d(x, parameters[lane]!(`${name}.weight`), options));
}

/** Runs `layer` and frees its inputs and temporaries: where nothing is recorded for a backward, two layers' activations are all that is alive. */
export function consumed(
  xs: readonly Tensor4D[],
  name: string,
  layer: (xs: readonly Tensor4D[]) => Tensor4D[],
): Tensor4D[] {
  const ys = moduleScope(name, () => tf.tidy(() => layer(xs)));
  tf.dispose(xs as Tensor4D[]);
  return ys;
}

/**
 * ResNet (He et al. 2016) to torchvision's numerics, "v1.5": the stride of a bottleneck is in its 3×3 convolution.
 * @param xs normalised pixels [B,H,W,3]
 * @returns float32 [B, featureWidth] each: the mean over all places of the last activations
 */
export function resNetFeatures(xs: readonly Tensor4D[], config: ResNetConfig, context: ConvolutionContext): Tensor2D[] {
  return tf.tidy(() => {
    let ys = moduleScope('stem', () => tf.tidy(() => stem(xs, config, context)));
    for (const block of resNetBlocks(config.depth, config.width)) {
      ys = consumed(ys, block.name, (inputs) => residualBlock(inputs, block, context));
    }
    return ys.map((y) => globalAveragePool(y));
  });
}

function stem(xs: readonly Tensor4D[], { stem: kind }: ResNetConfig, context: ConvolutionContext): Tensor4D[] {
  const pixels = xs.map((x) => toCompute(x, context.precision));
  const relu = { activation: 'relu' } as const;
  if (kind === 'cifar') return context.normalise(convolve(pixels, 'conv1', context, { padding: 1 }), 'bn1', relu);
  const wide = context.normalise(convolve(pixels, 'conv1', context, { stride: 2, padding: 3 }), 'bn1', relu);
  return wide.map((y) => maxPool2d(y, { size: 3, stride: 2, padding: 1 }));
}

function residualBlock(xs: readonly Tensor4D[], block: BlockShape, context: ConvolutionContext): Tensor4D[] {
  const { name, stride, kind } = block;
  const { normalise } = context;
  const shortcuts = hasDownsample(block)
    ? normalise(convolve(xs, `${name}.downsample.0`, context, { stride }), `${name}.downsample.1`)
    : xs;
  const relu = { activation: 'relu' } as const;
  const last = { ...relu, residuals: shortcuts };
  if (kind === 'basic') {
    const hidden = normalise(convolve(xs, `${name}.conv1`, context, { stride, padding: 1 }), `${name}.bn1`, relu);
    return normalise(convolve(hidden, `${name}.conv2`, context, { padding: 1 }), `${name}.bn2`, last);
  }
  const narrow = normalise(convolve(xs, `${name}.conv1`, context), `${name}.bn1`, relu);
  const hidden = normalise(convolve(narrow, `${name}.conv2`, context, { stride, padding: 1 }), `${name}.bn2`, relu);
  return normalise(convolve(hidden, `${name}.conv3`, context), `${name}.bn3`, last);
}
