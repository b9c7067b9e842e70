import sharp, { type Sharp } from 'sharp';
import type { CoveyError } from '../../common/errors.ts';
import { brokenImage, type ImageHeader, readImageHeader } from './image-header.ts';

/** uint8 RGB, row by row: [height, width, 3]. */
export interface RgbImage {
  readonly pixels: Uint8Array;
  readonly width: number;
  readonly height: number;
}

export interface DecodeLimits {
  /** Pictures with more pixels are refused as broken. */
  readonly pixelsMax: number;
}

// Every picture is decoded once; libvips' operation cache would only hold memory.
sharp.cache(false);

/**
 * A decoder for bytes from strangers. Like PIL it ignores EXIF orientation and colour profiles, and takes the first frame;
 * any broken byte is an error, never a grey rest of the picture.
 */
export function openImage(
  bytes: Uint8Array,
  limits: DecodeLimits,
): { readonly header: ImageHeader; readonly pipeline: Sharp } {
  const header = readImageHeader(bytes, limits);
  const pipeline = sharp(bytes, {
    limitInputPixels: limits.pixelsMax,
    failOn: 'error',
    ignoreIcc: true,
    sequentialRead: true,
  });
  return { header, pipeline };
}

/**
 * Runs a pipeline to 8-bit sRGB; transparency is flattened on white, grey and CMYK become RGB. Throws DATA_CORRUPT with
 * `fields.reason` = undecodable where the file is broken.
 */
export async function toRgb(pipeline: Sharp): Promise<RgbImage> {
  try {
    const { data, info } = await pipeline
      .flatten({ background: '#ffffff' })
      .toColourspace('srgb')
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true });
    const plain = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    const pixels = info.channels === 3 ? plain : repeatGrey(plain, info.channels);
    return { pixels, width: info.width, height: info.height };
  } catch (thrown) {
    throw undecodable(thrown);
  }
}

function undecodable(thrown: unknown): CoveyError {
  return brokenImage('undecodable', thrown instanceof Error ? thrown.message.trim() : String(thrown), thrown);
}

/** The whole picture at its own size. */
export async function decodeRgb(bytes: Uint8Array, limits: DecodeLimits): Promise<RgbImage> {
  return toRgb(openImage(bytes, limits).pipeline);
}

/** A pipeline over pixels at hand. */
export function rawPipeline({ pixels, width, height }: RgbImage): Sharp {
  return sharp(pixels, { raw: { width, height, channels: 3 } });
}

/**
 * Whether a picture is 8-bit RGB or grey as it lies in the file. Only then do crop and resize commute with `toRgb`: transparency is
 * flattened, and 16 bits and CMYK are converted, after a resize.
 */
export async function isPlainRgb(pipeline: Sharp): Promise<boolean> {
  try {
    const { depth, space, hasAlpha } = await pipeline.metadata();
    return depth === 'uchar' && !hasAlpha && (space === 'srgb' || space === 'b-w');
  } catch (thrown) {
    throw undecodable(thrown);
  }
}

/** [.., channels] with grey first → [.., 3]. */
function repeatGrey(data: Uint8Array, channels: number): Uint8Array {
  const count = data.length / channels;
  const pixels = new Uint8Array(3 * count);
  for (let i = 0; i < count; i++) pixels.fill(data[i * channels]!, 3 * i, 3 * i + 3);
  return pixels;
}
