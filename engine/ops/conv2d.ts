import { onTorch } from '../backend/active.ts';
import { fusedConv2d } from '../fused/conv2d.ts';
import { conv2d as plainConv2d, type Tensor4D, transpose } from '../tf.ts';
import { withEdges } from './edges.ts';

export interface Conv2dOptions {
  /** In both directions. Default 1. */
  readonly stride?: number;
  /** Zeros on every side. Default 0. */
  readonly padding?: number;
}

/**
 * 2-D convolution (cross-correlation, as everywhere) of channels-last activations, without bias.
 *
 * @param x_BHWC its storage (fp32 or bf16) is the precision of the products, which accumulate in fp32.
 * @param weight_OIHW fp32 master weight in PyTorch's layout. Its gradient is fp32; x's is computed only where somebody needs it.
 * @returns [B,H',W',O] in x's precision, H' = ⌊(H + 2·padding − height)/stride⌋ + 1
 */
export function conv2d(
  x_BHWC: Tensor4D,
  weight_OIHW: Tensor4D,
  { stride = 1, padding = 0 }: Conv2dOptions = {},
): Tensor4D {
  if (onTorch()) return fusedConv2d(x_BHWC, weight_OIHW, stride, padding);
  return plainConv2d(withEdges(x_BHWC, padding, 0), transpose(weight_OIHW, [2, 3, 1, 0]), stride, 'valid');
}
