import { luma } from './luma.ts';

/** ImageEnhance.Color: each pixel towards its own grey, in Pillow's single precision. In place; uint8 RGB [.., 3]. */
export function adjustSaturation(pixels: Uint8Array, factor: number): void {
  // The product of blend() for every difference from the grey.
  const single = Math.fround(factor);
  const away = Float32Array.from({ length: 511 }, (_, i) => single * (i - 255));
  // The clamped array rounds; what is written has been truncated before.
  const out = new Uint8ClampedArray(pixels.buffer, pixels.byteOffset, pixels.byteLength);
  for (let i = 0; i < pixels.length; i += 3) {
    const r = pixels[i]!;
    const g = pixels[i + 1]!;
    const b = pixels[i + 2]!;
    const grey = luma(r, g, b);
    const base = 255 - grey;
    out[i] = Math.fround(grey + away[base + r]!) | 0;
    out[i + 1] = Math.fround(grey + away[base + g]!) | 0;
    out[i + 2] = Math.fround(grey + away[base + b]!) | 0;
  }
}
