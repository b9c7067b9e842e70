import {
  addLayerNorm,
  attention,
  layerNorm,
  linear,
  type MlpLayer,
  mlp,
  moduleScope,
  recompute,
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

/** LayerNorm epsilon of every CLIP model. */
export const LAYER_NORM_EPS = 1e-5;

/** Transformer blocks of each tower, from the first, that backward computes again instead of holding what they saved. */
export type RecomputeOption = 'none' | 'blocks' | number;

export function recomputedBlocks(recompute: RecomputeOption): number {
  return recompute === 'none' ? 0 : recompute === 'blocks' ? Number.POSITIVE_INFINITY : recompute;
}

/** Finds a parameter by open_clip key; throws where there is none. */
export type ParameterLookup = <T extends Tensor>(name: string) => T;

/** A place where something may be inserted: after a block's attention or MLP, before the residual sum. */
export interface BlockPlace {
  readonly block: number;
  readonly after: 'attention' | 'mlp';
}

/** What is inserted there. Its result takes the place of `x`. */
export type BlockInsert = (x: Tensor, place: BlockPlace) => Tensor;

export interface TransformerOptions {
  /** Key prefix up to the block number, e.g. `visual.transformer.resblocks`. */
  readonly prefix: string;
  readonly layers: number;
  readonly heads: number;
  readonly causal: boolean;
  /** Tokens of each item that are not padding; default all. Not with `causal`, where what is read out sees no padding. */
  readonly lengths?: Int32Array;
  readonly quickGelu: boolean;
  /** The token the tower reads out: one for all, or one per item. Null: all of them. */
  readonly pooledToken: number | Int32Array | null;
  /** Of this many blocks, from the first, only the residual stream is held for backward; the rest is computed again. */
  readonly recomputedBlocks: number;
  /** Default: nothing. */
  readonly insert?: BlockInsert | undefined;
  /** Default: CLIP's. */
  readonly layerNormEps?: number;
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
 * Runs all blocks and returns the pooled rows [B,D], or [B,T,D] where nothing is pooled. What follows the last block's attention works row by row, so it is done for the
 * pooled rows only: the same numbers for a fraction of that block's work. Each block's temporaries are freed when it ends unless
 * backward needs them.
 */
export function transformerPooled(
  x_BTD: Tensor3D,
  parameter: ParameterLookup,
  options: TransformerOptions & { readonly pooledToken: number | Int32Array },
): Tensor2D;
export function transformerPooled(x_BTD: Tensor3D, parameter: ParameterLookup, options: TransformerOptions): Tensor;
export function transformerPooled(x_BTD: Tensor3D, parameter: ParameterLookup, options: TransformerOptions): Tensor {
  let stream: Stream = { x: x_BTD, delta: null };
  for (let block = 0; block < options.layers; block++) {
    const input = stream;
    stream = moduleScope(`block ${block}`, () =>
      tf.tidy(() => residualBlock(input, block, parameter, options) as never),
    );
    if (block > 0) input.x.dispose();
    input.delta?.dispose();
  }
  return tf.add(stream.x, stream.delta!);
}

function residualBlock(input: Stream, block: number, parameter: ParameterLookup, options: TransformerOptions): Stream {
  const get: ParameterLookup = (name) => parameter(`${options.prefix}.${block}.${name}`);
  const { sum, normalised } = moduleScope('ln_1', () => addThenNormalise(input, get, options));
  const isLast = block === options.layers - 1;
  const { insert } = options;
  const place =
    insert === undefined ? undefined : (after: BlockPlace['after']) => (x: Tensor) => insert(x, { block, after });
  const rest = (skip: Tensor, x: Tensor): Tensor[] =>
    afterFirstNorm(skip, x, { isLast, insertAfter: place }, get, options);
  if (block >= options.recomputedBlocks) return streamOf(rest(sum, normalised));
  // The layer norm has saved the sum already, so that nothing but the sum is held.
  const normalise = (x: Tensor) => [layerNorm(x, get('ln_1.weight'), get<Tensor1D>('ln_1.bias'), epsOf(options))];
  const keep = { count: 1, remake: (x: Tensor) => normalise(x) };
  return streamOf(recompute((skip, x) => rest(skip!, x!), [sum, normalised], { keep }));
}

function streamOf([x, delta]: readonly Tensor[]): Stream {
  return { x: x!, delta: delta! };
}

interface BlockFacts {
  readonly isLast: boolean;
  readonly insertAfter: ((after: BlockPlace['after']) => (x: Tensor) => Tensor) | undefined;
}

/** Attention and the multi-layer perceptron: [x, delta] of the next stream. */
function afterFirstNorm(
  sum: Tensor,
  normalised: Tensor,
  { isLast, insertAfter }: BlockFacts,
  get: ParameterLookup,
  options: TransformerOptions,
): Tensor[] {
  let skip = sum;
  const { pooledToken } = options;
  const attended = moduleScope('attention', () => {
    const qkv = linear(normalised, get('attn.in_proj_weight'), get<Tensor1D>('attn.in_proj_bias')) as Tensor3D;
    let mixed: Tensor = attention(qkv, options.heads, options);
    if (isLast && pooledToken !== null) {
      mixed = selectTokens(mixed as Tensor3D, pooledToken);
      skip = selectTokens(sum as Tensor3D, pooledToken);
    }
    const projected = linear(mixed, get('attn.out_proj.weight'), get<Tensor1D>('attn.out_proj.bias'));
    return insertAfter?.('attention')(projected) ?? projected;
  });
  const second = moduleScope('ln_2', () =>
    addLayerNorm(skip, attended, get('ln_2.weight'), get<Tensor1D>('ln_2.bias'), epsOf(options)),
  );
  const delta = moduleScope('mlp', () => {
    const layer = (name: string): MlpLayer => ({
      weight: get(`mlp.${name}.weight`),
      bias: get<Tensor1D>(`mlp.${name}.bias`),
    });
    const activation = options.quickGelu ? 'quickGelu' : 'gelu';
    const projected = mlp(second.normalised, layer('c_fc'), layer('c_proj'), activation);
    return insertAfter?.('mlp')(projected) ?? projected;
  });
  return [second.sum, delta];
}

function addThenNormalise(
  { x, delta }: Stream,
  get: ParameterLookup,
  options: TransformerOptions,
): { sum: Tensor; normalised: Tensor } {
  const weight = get<Tensor1D>('ln_1.weight');
  const bias = get<Tensor1D>('ln_1.bias');
  if (delta) return addLayerNorm(x, delta, weight, bias, epsOf(options));
  return { sum: x, normalised: layerNorm(x, weight, bias, epsOf(options)) };
}

function epsOf({ layerNormEps = LAYER_NORM_EPS }: TransformerOptions): number {
  return layerNormEps;
}
