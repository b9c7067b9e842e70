/**
 * Changes of a pixel's channel that depend on its level alone: a table of 256. Tables are chained by indexing, which is exact,
 * so that neighbours in a chain cost one pass over the picture.
 */
export type Levels = Uint8Array;

/** Pillow's Image.blend(degenerate, image, factor) for one value (Blend.c): single precision, truncated, clamped. */
export function blend(degenerate: number, value: number, factor: number): number {
  const mixed = Math.fround(degenerate + Math.fround(Math.fround(factor) * (value - degenerate)));
  return mixed <= 0 ? 0 : mixed >= 255 ? 255 : Math.trunc(mixed);
}

/** ImageEnhance.Brightness: towards black. */
export function brightnessLevels(factor: number): Levels {
  return Uint8Array.from({ length: 256 }, (_, level) => blend(0, level, factor));
}

/** ImageEnhance.Contrast: towards the picture's mean grey (see meanLuma). */
export function contrastLevels(factor: number, mean: number): Levels {
  return Uint8Array.from({ length: 256 }, (_, level) => blend(mean, level, factor));
}

/** ImageOps.solarize: levels from `threshold` on are inverted. */
export function solarizeLevels(threshold: number): Levels {
  return Uint8Array.from({ length: 256 }, (_, level) => (level < threshold ? level : 255 - level));
}

/** `first`, then `second`. */
export function chainLevels(first: Levels | null, second: Levels): Levels {
  return first === null ? second : first.map((level) => second[level]!);
}

/** In place. */
export function applyLevels(pixels: Uint8Array, levels: Levels): void {
  for (let i = 0; i < pixels.length; i++) pixels[i] = levels[pixels[i]!]!;
}
