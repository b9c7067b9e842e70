import type { VisionConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import {
  addTokenAndPosition,
  layerNorm,
  linear,
  moduleScope,
  patchify,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type Tensor3D,
  type Tensor4D,
  tf,
  toCompute,
  toFloat32,
} from '../../engine/index.ts';
import { type BlockInsert, LAYER_NORM_EPS, type ParameterLookup, transformerPooled } from './transformer.ts';

export interface TowerOptions {
  readonly precision: 'fp32' | 'bf16';
  readonly quickGelu: boolean;
  /** See transformer.ts. */
  readonly recomputedBlocks: number;
  /** See transformer.ts. */
  readonly insert?: BlockInsert | undefined;
}

/** The pixels, where they are in the tower's shape. @throws CoveyError INVALID_ARGUMENT */
export function checkedPixels(x_BHWC: Tensor, { imageSize }: VisionConfig): Tensor4D {
  const [, height, width, channels] = x_BHWC.shape;
  if (x_BHWC.rank !== 4 || height !== imageSize || width !== imageSize || channels !== 3) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot encode images: the model takes [batch, ${imageSize}, ${imageSize}, 3]: got [${x_BHWC.shape}]`,
      { fields: { shape: x_BHWC.shape } },
    );
  }
  return x_BHWC as Tensor4D;
}

/**
 * Vision transformer (Dosovitskiy et al. 2021) as open_clip's `VisionTransformer` with `tok` pooling: patches without bias, class token,
 * learnt positions, ln_pre, blocks, ln_post on the class token.
 * @param x_BHWC normalised pixels
 * @returns float32 [B,D]
 */
export function imageFeatures(
  x_BHWC: Tensor4D,
  parameter: ParameterLookup,
  config: VisionConfig,
  { precision, quickGelu, recomputedBlocks, insert }: TowerOptions,
): Tensor2D {
  const { width, patchSize, layers, headWidth } = config;
  const embedded_BTD = moduleScope('patch embedding', () =>
    tf.tidy(() => {
      const patches_BNP = toCompute(patchify(x_BHWC, patchSize), precision);
      const kernel = tf.reshape(parameter('visual.conv1.weight'), [width, 3 * patchSize * patchSize]) as Tensor2D;
      const patches_BND = linear(patches_BNP, kernel, null) as Tensor3D;
      const positions: Tensor2D = parameter('visual.positional_embedding');
      return addTokenAndPosition(patches_BND, parameter<Tensor1D>('visual.class_embedding'), positions);
    }),
  );
  const tokens_BTD = moduleScope('ln_pre', () =>
    layerNorm(embedded_BTD, parameter('visual.ln_pre.weight'), parameter('visual.ln_pre.bias'), LAYER_NORM_EPS),
  ) as Tensor3D;
  embedded_BTD.dispose();
  const pooled_BD = transformerPooled(tokens_BTD, parameter, {
    prefix: 'visual.transformer.resblocks',
    layers,
    heads: width / headWidth,
    causal: false,
    quickGelu,
    recomputedBlocks,
    insert,
    pooledToken: 0,
  });
  return moduleScope('ln_post', () =>
    layerNorm(
      toFloat32(pooled_BD),
      parameter('visual.ln_post.weight'),
      parameter('visual.ln_post.bias'),
      LAYER_NORM_EPS,
    ),
  ) as Tensor2D;
}

/** What CLIP takes of the tower: its features projected to the shared space. @returns float32 [B,E], not normalised */
export function imageEmbedding(
  x_BHWC: Tensor4D,
  parameter: ParameterLookup,
  config: VisionConfig,
  options: TowerOptions,
): Tensor2D {
  const normed_BD = imageFeatures(x_BHWC, parameter, config, options);
  return moduleScope('projection', () => tf.matMul(normed_BD, parameter<Tensor2D>('visual.proj')));
}
