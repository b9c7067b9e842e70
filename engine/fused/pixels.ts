import { torchBackend } from '../backend/torch-backend.ts';
import type { Tensor4D } from '../tf.ts';

/** See ops/pixels.ts. */
export function fusedPixels(
  pixels: Uint8Array,
  shape_BHWC: readonly [number, number, number, number],
  scale: Float32Array,
  shift: Float32Array,
  precision: 'fp32' | 'bf16',
): Tensor4D {
  const backend = torchBackend();
  const handle = backend.addon.pixels(pixels, shape_BHWC, scale, shift, precision === 'bf16');
  return backend.tensor(handle, shape_BHWC) as Tensor4D;
}
