import { CoveyError } from '../../common/errors.ts';
import { onTorch } from '../backend/active.ts';
import { fusedPixels } from '../fused/pixels.ts';
import { reshape, type Tensor3D, type Tensor4D, tensor4d, transpose } from '../tf.ts';
import type { Precision } from './precision.ts';

type Channels = readonly [number, number, number];

export interface PixelOptions {
  /** Per channel, of pixels in [0, 1]. */
  readonly mean: Channels;
  readonly std: Channels;
  readonly precision: Precision;
}

/** uint8 RGB pixels as (pixel/255 − mean)/std in compute precision, [B, H, W, 3]. */
export function pixelsToTensor(
  pixels: Uint8Array,
  shape_BHWC: readonly [number, number, number, number],
  options: PixelOptions,
): Tensor4D {
  const size = shape_BHWC.reduce((product, side) => product * side, 1);
  if (pixels.length !== size || shape_BHWC[3] !== 3) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot make a picture tensor: shape [${shape_BHWC}] does not fit ${pixels.length} bytes of RGB`,
    );
  }
  // x·scale + shift, one rounding each, the same on every engine.
  const scale = Float32Array.from(options.std, (std) => 1 / (255 * std));
  const shift = Float32Array.from(options.mean, (mean, channel) => -mean / options.std[channel]!);
  if (onTorch()) return fusedPixels(pixels, shape_BHWC, scale, shift, options.precision);
  const values = new Float32Array(size);
  for (let i = 0; i < size; i++) values[i] = pixels[i]! * scale[i % 3]! + shift[i % 3]!;
  return tensor4d(values, [...shape_BHWC]);
}

/**
 * Cuts pictures into patches, in row-major order of patches. Inside a patch the order is channel, row, column, so that a convolution's
 * weight [width, 3, P, P] flattened to [width, 3·P·P] applies as it is.
 *
 * @param x_BHWC H and W multiples of `patch`
 * @returns [B, N, 3·P·P], N = (H/P)·(W/P)
 */
export function patchify(x_BHWC: Tensor4D, patch: number): Tensor3D {
  const [batch, height, width, channels] = x_BHWC.shape;
  if (height % patch !== 0 || width % patch !== 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot cut pictures into patches: ${height}×${width} is no multiple of ${patch}`,
    );
  }
  const rows = height / patch;
  const columns = width / patch;
  const split = reshape(x_BHWC, [batch, rows, patch, columns, patch * channels]);
  const cells = reshape(split, [batch, rows, patch, columns, patch, channels] as never);
  return reshape(transpose(cells, [0, 1, 3, 5, 2, 4]), [batch, rows * columns, channels * patch * patch]);
}
