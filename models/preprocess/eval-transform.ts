import { type DecodeLimits, decodeRgb, type RgbImage } from './decode.ts';
import { resizeAsPil } from './pil-resize.ts';
import { roundHalfEven } from './round-half-even.ts';

/**
 * open_clip's evaluation transform up to the tensor: shortest side to `imageSide` by antialiased bicubic, then the centre crop.
 * Equal to PIL and torchvision bit for bit where the decoders agree (PNG, lossless WebP); JPEG decoders differ by a level
 * here and there. Returns uint8 RGB [side, side, 3]. Throws DATA_CORRUPT with `fields.reason`.
 */
export async function evalTransform(bytes: Uint8Array, imageSide: number, limits: DecodeLimits): Promise<Uint8Array> {
  return evalPixels(await decodeRgb(bytes, limits), imageSide);
}

/** The same from a decoded picture. */
export function evalPixels(image: RgbImage, imageSide: number): Uint8Array {
  const { width, height } = image;
  const shortest = Math.min(width, height);
  // torchvision: int(size * long / short).
  const outWidth = width <= height ? imageSide : Math.trunc((imageSide * width) / shortest);
  const outHeight = height <= width ? imageSide : Math.trunc((imageSide * height) / shortest);
  return resizeAsPil(image, outWidth, outHeight, {
    filter: 'bicubic',
    window: {
      left: roundHalfEven((outWidth - imageSide) / 2),
      top: roundHalfEven((outHeight - imageSide) / 2),
      width: imageSide,
      height: imageSide,
    },
  });
}
