/**
 * torchvision's adjust_hue on a PIL picture: to 8-bit HSV, hue + int(turns·255) modulo 256, and back. Pillow's conversions
 * (Convert.c: rgb2hsv_row, hsv2rgb) to the bit, with their losses, also for a turn of nothing. In place; uint8 RGB [.., 3].
 */
export function adjustHue(pixels: Uint8Array, turns: number): void {
  const shift = Math.trunc(turns * 255) & 255;
  for (let i = 0; i < pixels.length; i += 3) {
    const r = pixels[i]!;
    const g = pixels[i + 1]!;
    const b = pixels[i + 2]!;
    const value = r > g ? (r > b ? r : b) : g > b ? g : b;
    const least = r < g ? (r < b ? r : b) : g < b ? g : b;
    const range = value - least;
    if (range === 0) continue;
    const saturation = Math.trunc(Math.fround(range / value) * 255);
    if (saturation === 0) {
      pixels[i] = value;
      pixels[i + 1] = value;
      pixels[i + 2] = value;
      continue;
    }
    const hue = (hueOf(r, g, b, value, range) + shift) & 255;
    const sector = Math.trunc((hue * 6) / 255);
    const rest = Math.fround((hue * 6) / 255 - sector);
    const strength = Math.fround(saturation / 255);
    const low = Math.round(value * (1 - strength));
    const falling = Math.round(value * (1 - strength * rest));
    const rising = Math.round(value * (1 - strength * (1 - rest)));
    const at = sector % 6;
    pixels[i] = at === 0 || at === 5 ? value : at === 1 ? falling : at === 4 ? rising : low;
    pixels[i + 1] = at === 1 || at === 2 ? value : at === 0 ? rising : at === 3 ? falling : low;
    pixels[i + 2] = at === 3 || at === 4 ? value : at === 2 ? rising : at === 5 ? falling : low;
  }
}

/** The hue as Pillow's byte. */
function hueOf(r: number, g: number, b: number, value: number, range: number): number {
  const rc = Math.fround((value - r) / range);
  const gc = Math.fround((value - g) / range);
  const bc = Math.fround((value - b) / range);
  const sixths = Math.fround(r === value ? bc - gc : g === value ? 2 + rc - bc : 4 + gc - rc);
  const turned = sixths / 6 + 1;
  const hue = Math.fround(turned >= 1 ? turned - 1 : turned);
  return Math.trunc(hue * 255);
}
