import { CoveyError } from '../../common/errors.ts';

export type ImageFormat = 'jpeg' | 'png' | 'webp';

export interface ImageHeader {
  readonly format: ImageFormat;
  readonly width: number;
  readonly height: number;
}

/** Why a picture is refused; the value of `fields.reason` of the DATA_CORRUPT error. */
export type BrokenImageReason = 'zero-byte' | 'not-an-image' | 'too-many-pixels' | 'undecodable';

export function brokenImage(reason: BrokenImageReason, detail: string, cause?: unknown): CoveyError {
  return new CoveyError('DATA_CORRUPT', `Cannot decode the picture: ${reason}: ${detail}`, {
    cause,
    fields: { reason },
  });
}

/**
 * Format and size from the first bytes, without decoding. Pictures come from strangers: only JPEG, PNG and WebP pass, and a
 * decompression bomb is refused here, before any decoder sees it. Throws DATA_CORRUPT with `fields.reason`.
 */
export function readImageHeader(bytes: Uint8Array, limits: { readonly pixelsMax: number }): ImageHeader {
  if (bytes.byteLength === 0) throw brokenImage('zero-byte', 'the file is empty');
  const header = pngHeader(bytes) ?? jpegHeader(bytes) ?? webpHeader(bytes);
  if (header === undefined) throw brokenImage('not-an-image', 'neither JPEG, PNG nor WebP');
  const { width, height } = header;
  if (width === 0 || height === 0) throw brokenImage('undecodable', `its size is ${width}×${height}`);
  if (width * height > limits.pixelsMax) {
    throw brokenImage('too-many-pixels', `${width}×${height} is more than ${limits.pixelsMax} pixels`);
  }
  return header;
}

const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const textAt = (bytes: Uint8Array, offset: number, length: number) =>
  String.fromCharCode(...bytes.subarray(offset, offset + length));

function pngHeader(bytes: Uint8Array): ImageHeader | undefined {
  if (bytes.length < 24 || view(bytes).getUint32(0) !== 0x89504e47 || textAt(bytes, 12, 4) !== 'IHDR') return undefined;
  return { format: 'png', width: view(bytes).getUint32(16), height: view(bytes).getUint32(20) };
}

/** Walks the segments to the first start-of-frame (ITU T.81 B.1.1.3). */
function jpegHeader(bytes: Uint8Array): ImageHeader | undefined {
  if (bytes.length < 4 || bytes[0] !== 0xff || bytes[1] !== 0xd8 || bytes[2] !== 0xff) return undefined;
  const data = view(bytes);
  let offset = 2;
  while (offset + 9 <= bytes.length) {
    if (bytes[offset] !== 0xff) break;
    const marker = bytes[offset + 1]!;
    if (marker === 0xff) {
      offset++; // fill byte
      continue;
    }
    if (marker === 0x01 || (marker >= 0xd0 && marker <= 0xd7)) {
      offset += 2; // no length field
      continue;
    }
    // SOF0–SOF15 without DHT (c4), JPG (c8) and DAC (cc).
    if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc) {
      return { format: 'jpeg', width: data.getUint16(offset + 7), height: data.getUint16(offset + 5) };
    }
    if (marker === 0xd9 || marker === 0xda) break;
    offset += 2 + data.getUint16(offset + 2);
  }
  throw brokenImage('undecodable', 'the JPEG has no frame header');
}

/** RFC 9649: VP8 (lossy), VP8L (lossless), VP8X (extended). */
function webpHeader(bytes: Uint8Array): ImageHeader | undefined {
  if (bytes.length < 30 || textAt(bytes, 0, 4) !== 'RIFF' || textAt(bytes, 8, 4) !== 'WEBP') return undefined;
  const data = view(bytes);
  switch (textAt(bytes, 12, 4)) {
    case 'VP8 ':
      return { format: 'webp', width: data.getUint16(26, true) & 0x3fff, height: data.getUint16(28, true) & 0x3fff };
    case 'VP8L': {
      const packed = data.getUint32(21, true);
      return { format: 'webp', width: (packed & 0x3fff) + 1, height: ((packed >>> 14) & 0x3fff) + 1 };
    }
    case 'VP8X': {
      const uint24 = (offset: number) => data.getUint16(offset, true) + (bytes[offset + 2]! << 16);
      return { format: 'webp', width: uint24(24) + 1, height: uint24(27) + 1 };
    }
    default:
      throw brokenImage('undecodable', 'the WebP has an unknown first chunk');
  }
}
