import type { RgbImage } from './decode.ts';

/** Fixed-point bits of Pillow's 8-bit resampling (src/libImaging/Resample.c: 32 - 8 - 2). */
const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);

/** Resample.c: the kernels, and how far from their middle they reach. */
const FILTERS = {
  bilinear: { support: 1, weigh: triangle },
  bicubic: { support: 2, weigh: bicubic },
} as const;

/** Part of the resized picture, in its pixels. */
export interface Window {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

export interface PilResizeOptions {
  readonly filter: keyof typeof FILTERS;
  /** What of the result is computed. Default: all of it. */
  readonly window?: Window;
}

/**
 * Resizes to outWidth × outHeight as Pillow's `Image.resize` does, to the bit: antialiased bilinear or bicubic (a = -0.5) with
 * 22-bit fixed-point weights, horizontally and then vertically with an 8-bit picture between. Returns uint8 RGB
 * [window.height, window.width, 3]. Bicubic is what open_clip's published accuracies are measured with.
 */
export function resizeAsPil(
  source: RgbImage,
  outWidth: number,
  outHeight: number,
  options: PilResizeOptions,
): Uint8Array {
  const { filter, window = { left: 0, top: 0, width: outWidth, height: outHeight } } = options;
  const columns = taps(filter, source.width, outWidth, window.left, window.width);
  const rows = taps(filter, source.height, outHeight, window.top, window.height);
  const firstRow = rows.starts[0]!;
  const endRow = rows.starts[window.height - 1]! + rows.counts[window.height - 1]!;
  const between = new Uint8ClampedArray((endRow - firstRow) * window.width * 3);
  if (source.width === outWidth) {
    // Pillow skips a pass that changes nothing.
    for (let row = firstRow; row < endRow; row++) {
      const begin = (row * source.width + window.left) * 3;
      between.set(source.pixels.subarray(begin, begin + 3 * window.width), (row - firstRow) * window.width * 3);
    }
  } else {
    horizontal(source, columns, { firstRow, endRow }, between);
  }
  const begin = (window.top - firstRow) * window.width * 3;
  if (source.height === outHeight) return new Uint8Array(between.buffer, begin, window.width * window.height * 3);
  return vertical(between, rows, firstRow, window);
}

interface Taps {
  readonly starts: Int32Array;
  readonly counts: Int32Array;
  /** [outputs, stride]. */
  readonly weights: Int32Array;
  readonly stride: number;
}

function triangle(x: number): number {
  return Math.max(1 - Math.abs(x), 0);
}

/** Keys' cubic with a = -0.5: Pillow's, and PyTorch's where it antialiases. */
export function bicubic(x: number): number {
  const a = -0.5;
  const d = Math.abs(x);
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  if (d < 2) return (((d - 5) * d + 8) * d - 4) * a;
  return 0;
}

/** Resample.c: precompute_coeffs and normalize_coeffs_8bpc. */
function taps(filter: keyof typeof FILTERS, inSize: number, outSize: number, first: number, count: number): Taps {
  const kernel = FILTERS[filter];
  const scale = inSize / outSize;
  const filterScale = Math.max(scale, 1);
  const support = kernel.support * filterScale;
  const stride = Math.ceil(support) * 2 + 1;
  const starts = new Int32Array(count);
  const counts = new Int32Array(count);
  const weights = new Int32Array(count * stride);
  const real = new Float64Array(stride);
  for (let i = 0; i < count; i++) {
    const center = (first + i + 0.5) * scale;
    const begin = Math.max(Math.trunc(center - support + 0.5), 0);
    const end = Math.min(Math.trunc(center + support + 0.5), inSize);
    let sum = 0;
    for (let x = begin; x < end; x++) {
      const weight = kernel.weigh((x - center + 0.5) * (1 / filterScale));
      real[x - begin] = weight;
      sum += weight;
    }
    for (let k = 0; k < end - begin; k++) {
      const weight = sum === 0 ? real[k]! : real[k]! / sum;
      weights[i * stride + k] = Math.trunc((weight < 0 ? -0.5 : 0.5) + weight * 2 ** PRECISION_BITS);
    }
    starts[i] = begin;
    counts[i] = end - begin;
  }
  return { starts, counts, weights, stride };
}

function horizontal(
  source: RgbImage,
  columns: Taps,
  rows: { readonly firstRow: number; readonly endRow: number },
  out: Uint8ClampedArray,
): void {
  const { starts, counts, weights, stride } = columns;
  const { pixels, width } = source;
  const outWidth = starts.length;
  let to = 0;
  for (let row = rows.firstRow; row < rows.endRow; row++) {
    for (let x = 0; x < outWidth; x++) {
      let from = (row * width + starts[x]!) * 3;
      const end = x * stride + counts[x]!;
      let r = HALF;
      let g = HALF;
      let b = HALF;
      for (let k = x * stride; k < end; k++, from += 3) {
        const weight = weights[k]!;
        r += pixels[from]! * weight;
        g += pixels[from + 1]! * weight;
        b += pixels[from + 2]! * weight;
      }
      out[to] = r >> PRECISION_BITS;
      out[to + 1] = g >> PRECISION_BITS;
      out[to + 2] = b >> PRECISION_BITS;
      to += 3;
    }
  }
}

function vertical(between: Uint8ClampedArray, rows: Taps, firstRow: number, window: Window): Uint8Array {
  const { starts, counts, weights, stride } = rows;
  const rowBytes = window.width * 3;
  const out = new Uint8ClampedArray(rowBytes * window.height);
  for (let y = 0; y < window.height; y++) {
    const begin = (starts[y]! - firstRow) * rowBytes;
    for (let i = 0; i < rowBytes; i++) {
      let sum = HALF;
      let from = begin + i;
      for (let k = 0; k < counts[y]!; k++, from += rowBytes) sum += between[from]! * weights[y * stride + k]!;
      out[y * rowBytes + i] = sum >> PRECISION_BITS;
    }
  }
  return new Uint8Array(out.buffer);
}
