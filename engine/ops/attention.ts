import { onTorch } from '../backend/active.ts';
import { fusedAttention } from '../fused/attention.ts';
import {
  add,
  matMul,
  mul,
  reshape,
  softmax,
  type Tensor,
  type Tensor2D,
  type Tensor3D,
  tensor,
  tensor2d,
  transpose,
  unstack,
} from '../tf.ts';
import { precisionOf, toCompute, toFloat32 } from './precision.ts';

export interface AttentionOptions {
  /** A token sees itself and those before it only. */
  readonly causal?: boolean;
  /** Tokens of each sequence that any may see; what lies behind is padding. At least 1 each. Default: all. Not with `causal`. */
  readonly lengths?: Int32Array;
}

/**
 * Multi-head self-attention on packed projections (Vaswani et al. 2017, §3.2): softmax(q·kᵀ/√h)·v per head. Softmax runs in fp32.
 * Shapes: B batch, T tokens, D width, h = D/heads.
 *
 * @param qkv_BT3D q, k and v stacked along the last axis, each [B, T, D]
 * @returns [B, T, D], heads concatenated, in qkv's precision
 */
export function attention(qkv_BT3D: Tensor3D, heads: number, options: AttentionOptions = {}): Tensor3D {
  const { causal = false, lengths } = options;
  if (lengths === undefined && onTorch()) return fusedAttention(qkv_BT3D, heads, causal);
  const [batch, tokens, packed] = qkv_BT3D.shape;
  const width = packed / 3;
  const headWidth = width / heads;
  // The fused kernel knows no padding: with it, plain products in fp32.
  const precision = precisionOf(qkv_BT3D);
  const split = transpose(reshape(toFloat32(qkv_BT3D), [batch, tokens, 3, heads, headWidth]), [2, 0, 3, 1, 4]);
  const [q, k, v] = unstack(split) as [Tensor, Tensor, Tensor];
  const scores = mul(matMul(q, k, false, true), 1 / Math.sqrt(headWidth));
  const mask = lengths !== undefined ? paddingMask(lengths, tokens) : causal ? causalMask(tokens) : undefined;
  const masked = mask === undefined ? scores : add(scores, mask);
  const mixed = reshape(transpose(matMul(softmax(masked), v), [0, 2, 1, 3]), [batch, tokens, width]) as Tensor3D;
  return toCompute(mixed, precision);
}

/** 0 where a token may look, −1e9 elsewhere (finite: a softmax over −∞ has no gradient on every backend). */
function causalMask(tokens: number): Tensor2D {
  const mask = new Float32Array(tokens * tokens);
  for (let row = 0; row < tokens; row++) mask.fill(-1e9, row * tokens + row + 1, (row + 1) * tokens);
  return tensor2d(mask, [tokens, tokens]);
}

/** 0 where a token may be looked at, −1e9 in the padding: [B, 1, 1, T]. */
function paddingMask(lengths: Int32Array, tokens: number): Tensor {
  const mask = new Float32Array(lengths.length * tokens);
  for (const [row, length] of lengths.entries()) mask.fill(-1e9, row * tokens + length, (row + 1) * tokens);
  return tensor(mask, [lengths.length, 1, 1, tokens]);
}
