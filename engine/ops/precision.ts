import { onTorch } from '../backend/active.ts';
import { torchBackend } from '../backend/torch-backend.ts';
import { fusedToBfloat16, fusedToFloat32 } from '../fused/precision.ts';
import type { Tensor } from '../tf.ts';

/** Storage of activations and operands of products. Weights, their gradients and the optimiser's moments are always fp32. */
export type Precision = 'fp32' | 'bf16';

/**
 * The tensor in compute precision. tfjs has no bf16: on the `torch` engine such a tensor says `float32` and is stored as bfloat16
 * beneath; its gradient comes back in its source's precision. On other engines everything is computed in fp32 and this changes nothing.
 */
export function toCompute<T extends Tensor>(x: T, precision: Precision): T {
  if (precision === 'bf16' && onTorch()) return fusedToBfloat16(x) as T;
  return x;
}

/** The tensor in fp32 storage. */
export function toFloat32<T extends Tensor>(x: T): T {
  return onTorch() ? (fusedToFloat32(x) as T) : x;
}

/** That of the tensor's storage. */
export function precisionOf(x: Tensor): Precision {
  return onTorch() && torchBackend().isHalf(x) ? 'bf16' : 'fp32';
}
