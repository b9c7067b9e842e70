import { onTorch } from '../backend/active.ts';
import { fusedAddLayerNorm, fusedLayerNorm } from '../fused/layer-norm.ts';
import { add, moments, mul, rsqrt, sub, type Tensor, type Tensor1D } from '../tf.ts';

/**
 * Layer normalisation over the last axis (Ba et al. 2016): (x − mean)/√(variance + eps) · weight + bias. Statistics are fp32
 * also where x is bf16. The sums of the weight's and bias's gradients run over fixed blocks of rows.
 *
 * @param x [..., D]
 * @param weight, bias fp32 [D]
 */
export function layerNorm(x: Tensor, weight: Tensor1D, bias: Tensor1D, eps: number): Tensor {
  if (onTorch()) return fusedLayerNorm(x, weight, bias, eps);
  const { mean, variance } = moments(x, -1, true);
  return add(mul(mul(sub(x, mean), rsqrt(add(variance, eps))), weight), bias);
}

/**
 * A pre-LN block's step in one pass over memory: sum = x + delta, normalised = layerNorm(sum).
 *
 * @param x, delta [..., D] of one precision
 */
export function addLayerNorm(
  x: Tensor,
  delta: Tensor,
  weight: Tensor1D,
  bias: Tensor1D,
  eps: number,
): { sum: Tensor; normalised: Tensor } {
  if (onTorch()) return fusedAddLayerNorm(x, delta, weight, bias, eps);
  const sum = add(x, delta);
  return { sum, normalised: layerNorm(sum, weight, bias, eps) };
}
