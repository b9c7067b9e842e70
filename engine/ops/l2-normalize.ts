import { onTorch } from '../backend/active.ts';
import { fusedL2Normalize } from '../fused/l2-normalize.ts';
import { div, maximum, sqrt, square, sum, type Tensor } from '../tf.ts';

/** Rows shorter than this are divided by it, so that a zero row stays zero. */
export const L2_NORM_MIN = 1e-12;

/** x / max(‖x‖₂, 1e-12) over the last axis. The result is float32 also where x is bf16. */
export function l2Normalize(x: Tensor): Tensor {
  if (onTorch()) return fusedL2Normalize(x, L2_NORM_MIN);
  return div(x, maximum(sqrt(sum(square(x), -1, true)), L2_NORM_MIN));
}
