import type { ResnetVisionConfig } from '../../common/config/vision-config.ts';
import { moduleScope, type Tensor2D, type Tensor4D, tf } from '../../engine/index.ts';
import type { ParameterLookup } from '../clip/transformer.ts';
import { normal, type ParameterSpec } from '../parameter-spec.ts';
import type { Backbone, TowerContext } from './backbone.ts';
import { type ConvolutionShape, convolutionsCost } from './convolution-cost.ts';
import { type ConvolutionContext, resNetFeatures } from './resnet-forward.ts';
import {
  featureWidth,
  hasDownsample,
  type ResNetConfig,
  resNetBlocks,
  resNetBufferSpecs,
  resNetParameterSpecs,
} from './resnet-shapes.ts';

/** torchvision's ResNet as an image tower: its keys under `visual.`, and for CLIP a projection as its ViT has. */
export function resnetBackbone(vision: ResnetVisionConfig): Backbone {
  const { imageSize, depth, stem = 'imagenet', width = 64, zeroInitResidual = false } = vision;
  const config: ResNetConfig = { depth, stem, width, zeroInitResidual };
  const features = featureWidth(depth, width);
  const layers = convolutions(config, imageSize);
  return {
    imageSize,
    featureWidth: features,
    batchNormPlaces: layers.at(-1)!.side ** 2,
    parameterSpecs: (embedDim) => [
      ...underVisual(resNetParameterSpecs(config)),
      ...(embedDim === undefined
        ? []
        : [{ name: 'visual.proj', shape: [features, embedDim], initial: normal(features ** -0.5) }]),
    ],
    bufferSpecs: () => underVisual(resNetBufferSpecs(config)),
    features: (x_BHWC: Tensor4D, tower) =>
      resNetFeatures([x_BHWC], config, visualContext(tower, [tower.parameter]))[0]!,
    featuresTogether: (xs, towers) => resNetFeatures(xs, config, visualContext(towers, towers.lookups)),
    project: (features_BF, parameter) =>
      moduleScope('projection', () => tf.matMul(features_BF, parameter<Tensor2D>('visual.proj'))),
    cost: () => convolutionsCost(layers),
  };
}

export function underVisual(specs: readonly ParameterSpec[]): ParameterSpec[] {
  return specs.map((spec) => ({ ...spec, name: `visual.${spec.name}` }));
}

/** The layers know torchvision's and CLIP's bare names. */
export function visualContext(
  { normalise, precision }: Pick<TowerContext, 'normalise' | 'precision'>,
  lookups: readonly ParameterLookup[],
): ConvolutionContext {
  return {
    parameters: lookups.map(
      (lookup): ParameterLookup =>
        (name) =>
          lookup(`visual.${name}`),
    ),
    normalise: (xs, name, options) => normalise(xs, `visual.${name}`, options),
    precision,
  };
}

/** Every convolution with the places it is computed at. */
function convolutions({ depth, stem, width = 64 }: ResNetConfig, imageSize: number): ConvolutionShape[] {
  const half = (side: number) => Math.ceil(side / 2);
  const first = stem === 'cifar' ? imageSize : half(imageSize);
  const all: ConvolutionShape[] = [{ side: first, inputs: 3, outputs: width, size: stem === 'cifar' ? 3 : 7 }];
  let side = stem === 'cifar' ? first : half(first);
  for (const block of resNetBlocks(depth, width)) {
    const { inputs, width: inner, outputs, stride, kind } = block;
    const out = stride === 2 ? half(side) : side;
    if (hasDownsample(block)) all.push({ side: out, inputs, outputs, size: 1 });
    if (kind === 'basic') {
      all.push({ side: out, inputs, outputs: inner, size: 3 }, { side: out, inputs: inner, outputs, size: 3 });
    } else {
      all.push({ side, inputs, outputs: inner, size: 1 });
      all.push({ side: out, inputs: inner, outputs: inner, size: 3 }, { side: out, inputs: inner, outputs, size: 1 });
    }
    side = out;
  }
  return all;
}
