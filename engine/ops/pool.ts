import { onTorch } from '../backend/active.ts';
import { fusedGlobalAveragePool, fusedMaxPool2d } from '../fused/pool.ts';
import { maxPool, mean, type Tensor2D, type Tensor4D } from '../tf.ts';
import { withEdges } from './edges.ts';

export interface MaxPool2dOptions {
  /** Side of the window, at most 15. */
  readonly size: number;
  /** Default: `size`. */
  readonly stride?: number;
  /** Places beyond each edge, which never win; at most half of `size`. Default 0. */
  readonly padding?: number;
}

/**
 * Maximum over square windows. Of equal values the first in row order gets the gradient.
 *
 * @returns [B,H',W',C] in x's precision, H' = ⌊(H + 2·padding − size)/stride⌋ + 1
 */
export function maxPool2d(x_BHWC: Tensor4D, { size, stride = size, padding = 0 }: MaxPool2dOptions): Tensor4D {
  if (onTorch()) return fusedMaxPool2d(x_BHWC, size, stride, padding);
  return maxPool(withEdges(x_BHWC, padding, Number.NEGATIVE_INFINITY), size, stride, 'valid');
}

/** Mean over all places: fp32 [B,C], also of bf16 activations. */
export function globalAveragePool(x_BHWC: Tensor4D): Tensor2D {
  if (onTorch()) return fusedGlobalAveragePool(x_BHWC);
  return mean(x_BHWC, [1, 2]);
}
