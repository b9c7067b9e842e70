import {
  addLayerNorm,
  attention,
  gelu,
  layerNorm,
  linear,
  quickGelu,
  selectTokens,
  type Tensor,
  type Tensor1D,
  type Tensor2D,
  type Tensor3D,
  tf,
} from '../../engine/index.ts';

/**
 * Pre-LN residual blocks as open_clip's `ResidualAttentionBlock`. Shapes: B pictures or captions, T tokens, D width.
 */

/** LayerNorm epsilon of every CLIP model (SigLIP's 1e-6 is not built). */
export const LAYER_NORM_EPS = 1e-5;

/** Finds a parameter by open_clip key; throws where there is none. */
export type ParameterLookup = <T extends Tensor>(name: string) => T;

export interface TransformerOptions {
  /** Key prefix up to the block number, e.g. `visual.transformer.resblocks`. */
  readonly prefix: string;
  readonly layers: number;
  readonly heads: number;
  readonly causal: boolean;
  readonly quickGelu: boolean;
  /** The token the tower reads out: one for all, or one per item. */
  readonly pooledToken: number | Int32Array;
}

/**
 * The residual stream between two blocks, x + delta: the sum is left to the next block's layer norm, which makes it in the same pass
 * over memory.
 */
interface Stream {
  readonly x: Tensor;
  readonly delta: Tensor | null;
}

/**
 * Runs all blocks and returns the pooled rows [B,D]. What follows the last block's attention works row by row, so it is done for the
 * pooled rows only: the same numbers for a fraction of that block's work. Each block's temporaries are freed when it ends unless
 * backward needs them.
 */
export function transformerPooled(x_BTD: Tensor3D, parameter: ParameterLookup, options: TransformerOptions): Tensor2D {
  let stream: Stream = { x: x_BTD, delta: null };
  for (let block = 0; block < options.layers; block++) {
    const input = stream;
    stream = tf.tidy(() => residualBlock(input, block, parameter, options) as never);
    if (block > 0) input.x.dispose();
    input.delta?.dispose();
  }
  return tf.add(stream.x, stream.delta!) as Tensor2D;
}

function residualBlock(input: Stream, block: number, parameter: ParameterLookup, options: TransformerOptions): Stream {
  const get: ParameterLookup = (name) => parameter(`${options.prefix}.${block}.${name}`);
  const { sum, normalised } = addThenNormalise(input, get);
  const qkv = linear(normalised, get('attn.in_proj_weight'), get<Tensor1D>('attn.in_proj_bias')) as Tensor3D;
  let mixed: Tensor = attention(qkv, options.heads, { causal: options.causal });
  let skip = sum;
  if (block === options.layers - 1) {
    mixed = selectTokens(mixed as Tensor3D, options.pooledToken);
    skip = selectTokens(sum as Tensor3D, options.pooledToken);
  }
  const attended = linear(mixed, get('attn.out_proj.weight'), get<Tensor1D>('attn.out_proj.bias'));
  const second = addLayerNorm(skip, attended, get('ln_2.weight'), get<Tensor1D>('ln_2.bias'), LAYER_NORM_EPS);
  const hidden = linear(second.normalised, get('mlp.c_fc.weight'), get<Tensor1D>('mlp.c_fc.bias'));
  const activated = options.quickGelu ? quickGelu(hidden) : gelu(hidden);
  return { x: second.sum, delta: linear(activated, get('mlp.c_proj.weight'), get<Tensor1D>('mlp.c_proj.bias')) };
}

function addThenNormalise({ x, delta }: Stream, get: ParameterLookup): { sum: Tensor; normalised: Tensor } {
  const weight = get<Tensor1D>('ln_1.weight');
  const bias = get<Tensor1D>('ln_1.bias');
  if (delta) return addLayerNorm(x, delta, weight, bias, LAYER_NORM_EPS);
  return { sum: x, normalised: layerNorm(x, weight, bias, LAYER_NORM_EPS) };
}
