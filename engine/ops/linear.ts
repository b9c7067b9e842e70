import { onTorch } from '../backend/active.ts';
import { fusedLinear } from '../fused/linear.ts';
import { add, matMul, reshape, type Tensor, type Tensor1D, type Tensor2D } from '../tf.ts';

/**
 * x · weightᵀ + bias, over the last axis of x.
 *
 * @param x [..., I]; its storage (fp32 or bf16) is the precision of the product, which accumulates in fp32.
 * @param weight_OI fp32 master weight. Its gradient is fp32.
 * @param bias_O fp32, or null.
 * @returns [..., O] in x's precision.
 */
export function linear(x: Tensor, weight_OI: Tensor2D, bias_O: Tensor1D | null): Tensor {
  if (onTorch()) return fusedLinear(x, weight_OI, bias_O);
  const [outputs, inputs] = weight_OI.shape;
  const product_NO = matMul(reshape(x, [-1, inputs]), weight_OI, false, true);
  const sum_NO = bias_O === null ? product_NO : add(product_NO, bias_O);
  return reshape(sum_NO, [...x.shape.slice(0, -1), outputs]);
}
