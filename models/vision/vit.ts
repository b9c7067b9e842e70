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
import { type ParameterLookup, type TransformerOptions, transformerPooled } from '../clip/transformer.ts';
import { attentionPool } from './attention-pool.ts';
import type { TowerContext } from './backbone.ts';
import { keptPatches, selectPatches, selectPositions } from './patch-dropout.ts';
import { patchCount, type VitLayout } from './vit-layout.ts';

/**
 * Vision transformer (Dosovitskiy et al. 2021) under open_clip's keys: patches, class token, positions, ln_pre, pre-LN blocks, pooling and
 * ln_post. Shapes: B pictures, N patches, T tokens, D width.
 */

/** Patches as tokens, with their positions but without a class token, in compute precision: [B,N,D]. */
export function patchTokens(x_BHWC: Tensor4D, layout: VitLayout, tower: TowerContext): Tensor3D {
  return moduleScope('patch embedding', () =>
    tf.tidy(() => {
      const positions_TD: Tensor2D = tower.parameter('visual.positional_embedding');
      const first = layout.classToken ? 1 : 0;
      const [tokens, width] = positions_TD.shape;
      const own_ND = first === 0 ? positions_TD : tf.slice(positions_TD, [first, 0], [tokens - first, width]);
      return addTokenAndPosition(patches(x_BHWC, layout, tower), null, own_ND);
    }),
  );
}

/** The class token with its position for every picture, in compute precision: [B,1,D]. */
export function classTokens(batch: number, layout: VitLayout, { parameter, precision }: TowerContext): Tensor3D {
  const { width } = layout;
  return tf.tidy(() => {
    const position_1D = tf.slice(parameter<Tensor2D>('visual.positional_embedding'), [0, 0], [1, width]);
    const token_1D = tf.add(tf.reshape(parameter('visual.class_embedding'), [1, width]), position_1D);
    return toCompute(tf.tile(tf.reshape(token_1D, [1, 1, width]), [batch, 1, 1]) as Tensor3D, precision);
  });
}

/** Runs ln_pre (where there is one) and all blocks over any tokens, of all or of some patches. Takes `x_BTD` over. @returns [B,T,D] */
export function encodeTokens(x_BTD: Tensor3D, layout: VitLayout, tower: TowerContext): Tensor3D {
  return blocks(x_BTD, layout, tower, null) as Tensor3D;
}

/** ln_post, over the last axis: float32. */
export function finalNorm(x: Tensor, { layerNormEps }: VitLayout, { parameter }: TowerContext): Tensor {
  return moduleScope('ln_post', () =>
    layerNorm(
      toFloat32(x),
      parameter('visual.ln_post.weight'),
      parameter<Tensor1D>('visual.ln_post.bias'),
      layerNormEps,
    ),
  );
}

/** One feature per picture: float32 [B,D]. @param x_BHWC normalised pixels */
export function vitFeatures(x_BHWC: Tensor4D, layout: VitLayout, tower: TowerContext): Tensor2D {
  const { pooling, classToken, normBeforePool } = layout;
  const embedded_BTD = moduleScope('patch embedding', () =>
    tf.tidy(() => {
      if (tower.patchDropout) {
        const kept = keptPatches(tower.patchDropout, x_BHWC.shape[0], patchCount(layout));
        return keptTokens(x_BHWC, layout, tower, kept);
      }
      const token_D = classToken ? tower.parameter<Tensor1D>('visual.class_embedding') : null;
      const positions_TD = tower.parameter<Tensor2D>('visual.positional_embedding');
      return addTokenAndPosition(patches(x_BHWC, layout, tower), token_D, positions_TD);
    }),
  );
  if (pooling === 'tok') return finalNorm(blocks(embedded_BTD, layout, tower, 0), layout, tower) as Tensor2D;
  const x_BTD = encodeTokens(embedded_BTD, layout, tower);
  const tokens_BTD = normBeforePool ? finalNorm(x_BTD, layout, tower) : x_BTD;
  const pooled_BD = moduleScope('pooling', () => pool(tokens_BTD, layout, tower.parameter));
  return normBeforePool ? pooled_BD : (finalNorm(pooled_BD, layout, tower) as Tensor2D);
}

/**
 * The tokens of some patches, with their positions, behind the class token where there is one: [B,1+K,D]. No other patch is even embedded.
 * @param kept places of each picture's patches, [B·K]
 */
export function keptTokens(x_BHWC: Tensor4D, layout: VitLayout, tower: TowerContext, kept: Int32Array): Tensor3D {
  const [batch] = x_BHWC.shape;
  const first = layout.classToken ? 1 : 0;
  const patches_BKD = patches(x_BHWC, layout, tower, kept);
  const positions_BKD = selectPositions(tower.parameter('visual.positional_embedding'), kept, batch, first);
  const tokens_BKD = toCompute(tf.add(toFloat32(patches_BKD), positions_BKD) as Tensor3D, tower.precision);
  return layout.classToken ? (tf.concat([classTokens(batch, layout, tower), tokens_BKD], 1) as Tensor3D) : tokens_BKD;
}

/** @param kept of the patches, where they are not all wanted */
function patches(
  x_BHWC: Tensor4D,
  layout: VitLayout,
  { parameter, precision }: TowerContext,
  kept?: Int32Array,
): Tensor3D {
  const { width, patchSize, patchBias } = layout;
  const all_BNP = patchify(x_BHWC, patchSize);
  const patches_BNP = toCompute(kept ? selectPatches(all_BNP as Tensor3D, kept) : all_BNP, precision);
  const kernel = tf.reshape(parameter('visual.conv1.weight'), [width, 3 * patchSize * patchSize]) as Tensor2D;
  return linear(patches_BNP, kernel, patchBias ? parameter<Tensor1D>('visual.conv1.bias') : null) as Tensor3D;
}

/** ln_pre and the blocks. Takes `x_BTD` over. */
function blocks(x_BTD: Tensor3D, layout: VitLayout, tower: TowerContext, pooledToken: number | null): Tensor {
  const { width, layers, headWidth, layerNormEps, lnPre } = layout;
  const { parameter, quickGelu, recomputedBlocks, insert } = tower;
  const options: TransformerOptions = {
    prefix: 'visual.transformer.resblocks',
    layers,
    heads: width / headWidth,
    causal: false,
    quickGelu,
    recomputedBlocks,
    insert,
    pooledToken,
    layerNormEps,
  };
  if (!lnPre) {
    const y = transformerPooled(x_BTD, parameter, options);
    x_BTD.dispose();
    return y;
  }
  const normed_BTD = moduleScope('ln_pre', () =>
    layerNorm(x_BTD, parameter('visual.ln_pre.weight'), parameter<Tensor1D>('visual.ln_pre.bias'), layerNormEps),
  ) as Tensor3D;
  x_BTD.dispose();
  return transformerPooled(normed_BTD, parameter, options);
}

function pool(x_BTD: Tensor, layout: VitLayout, parameter: ParameterLookup): Tensor2D {
  const { pooling, classToken, width, headWidth, layerNormEps } = layout;
  if (pooling === 'map') {
    return attentionPool(x_BTD, parameter, { prefix: 'visual.attn_pool', heads: width / headWidth, eps: layerNormEps });
  }
  return tf.tidy(() => {
    const [batch, tokens] = x_BTD.shape as [number, number];
    const patches_BND = classToken ? tf.slice(x_BTD, [0, 1, 0], [batch, tokens - 1, width]) : x_BTD;
    return tf.mean(toFloat32(patches_BND), 1) as Tensor2D;
  });
}
