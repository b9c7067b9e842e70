import type { Levels } from './levels.ts';

/** Pillow's convert('L') (Convert.c: L24), ITU-R BT.601 in 16-bit fixed point. */
export function luma(r: number, g: number, b: number): number {
  return (r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16;
}

/** Pillow's ImageStat mean of convert('L'), rounded as ImageEnhance.Contrast does. `levels`: a map not yet applied, or null. */
export function meanLuma(pixels: Uint8Array, levels: Levels | null): number {
  let sum = 0;
  if (levels === null) {
    for (let i = 0; i < pixels.length; i += 3) sum += luma(pixels[i]!, pixels[i + 1]!, pixels[i + 2]!);
  } else {
    for (let i = 0; i < pixels.length; i += 3)
      sum += luma(levels[pixels[i]!]!, levels[pixels[i + 1]!]!, levels[pixels[i + 2]!]!);
  }
  return Math.floor((3 * sum) / pixels.length + 0.5);
}
