import type { VitConfig } from '../../common/config/vision-config.ts';
import { moduleScope, type Tensor2D, tf } from '../../engine/index.ts';
import { blockActivationFloats, blocksFlops, product } from '../clip/block-cost.ts';
import type { Backbone, BackboneCost } from './backbone.ts';
import { keptPatchCount } from './patch-dropout.ts';
import { vitFeatures } from './vit.ts';
import { patchCount, tokenCount, vitLayout } from './vit-layout.ts';
import { vitBufferSpecs, vitParameterSpecs } from './vit-shapes.ts';

export function vitBackbone(vision: VitConfig): Backbone {
  const layout = vitLayout(vision);
  return {
    imageSize: layout.imageSize,
    featureWidth: layout.width,
    batchNormPlaces: undefined,
    parameterSpecs: (embedDim) => vitParameterSpecs(layout, embedDim),
    bufferSpecs: () => vitBufferSpecs(layout),
    features: (x_BHWC, tower) => vitFeatures(x_BHWC, layout, tower),
    featuresTogether: (xs, { lookups, ...tower }) =>
      xs.map((x_BHWC, lane) => vitFeatures(x_BHWC, layout, { ...tower, parameter: lookups[lane]! })),
    project: (features_BF, parameter) =>
      moduleScope('projection', () => tf.matMul(features_BF, parameter<Tensor2D>('visual.proj'))),
    cost: (patchDropout = 0) => vitCost(vision, patchDropout),
  };
}

function vitCost(vision: VitConfig, patchDropout: number): BackboneCost {
  const layout = vitLayout(vision);
  const { width, layers, mlpRatio, headWidth, patchSize, pooling } = layout;
  const patches = patchDropout > 0 ? keptPatchCount(patchCount(layout), patchDropout) : patchCount(layout);
  const tokens = tokenCount(layout) - patchCount(layout) + patches;
  const patchEmbedding = product(patches, 3 * patchSize ** 2, width);
  const blocks = blocksFlops({
    width,
    layers,
    mlpRatio,
    tokens,
    causal: false,
    pooledRows: pooling === 'tok' ? 1 : tokens,
  });
  const head = pooling === 'map' ? mapHeadFlops(tokens, width, mlpRatio) : 0;
  return {
    forwardFlops: patchEmbedding + blocks + head,
    backwardFlops: patchEmbedding + 2 * (blocks + head),
    activationFloats: layers * blockActivationFloats({ tokens, width, mlpRatio, heads: width / headWidth }),
  };
}

/** Keys and values of all tokens; query, output and perceptron of one row. */
function mapHeadFlops(tokens: number, width: number, mlpRatio: number): number {
  return (
    product(tokens, width, 2 * width) + 2 * product(tokens, width, 1) + product(1, width, width * (2 + 2 * mlpRatio))
  );
}
