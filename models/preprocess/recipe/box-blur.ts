/** Box blurs that Pillow's GaussianBlur runs per direction (ImageFilter.GaussianBlur, BoxBlur.c). */
const PASSES = 3;
const HALF = 1 << 23;

/**
 * Pillow's ImageFilter.GaussianBlur(radius = sigma), to the bit: three extended box blurs across, then three down, 8 bits
 * between passes, the edge pixel repeated. This is what the MoCo code blurs with. Its cost does not depend on sigma. In place; uint8 RGB
 * [side, side, 3]; `scratch` has as many bytes.
 */
export function blurAsPillow(pixels: Uint8Array, side: number, sigma: number, scratch: Uint8Array): void {
  const radius = boxRadius(sigma);
  if (radius === 0) return;
  let [from, to] = [pixels, scratch];
  for (const across of [true, false]) {
    for (let pass = 0; pass < PASSES; pass++) {
      boxBlur(from, to, side, radius, across);
      [from, to] = [to, from];
    }
  }
}

/** BoxBlur.c: _gaussian_blur_radius, in single precision where C is. */
function boxRadius(sigma: number): number {
  const f = Math.fround;
  const variance = f(f(f(sigma) * f(sigma)) / PASSES);
  const length = f(Math.sqrt(12 * variance + 1));
  const whole = Math.floor((length - 1) / 2);
  const numerator = f((2 * whole + 1) * f(whole * (whole + 1) - f(3 * variance)));
  const fraction = f(numerator / f(6 * f(variance - (whole + 1) * (whole + 1))));
  return f(whole + fraction);
}

/** One pass along rows or columns; BoxBlur.c: ImagingHorizontalBoxBlur, ImagingLineBoxBlur32. */
function boxBlur(from: Uint8Array, to: Uint8Array, side: number, boxRadiusReal: number, across: boolean): void {
  const radius = Math.trunc(boxRadiusReal);
  const inner = Math.trunc(Math.fround(2 ** 24 / Math.fround(boxRadiusReal * 2 + 1)));
  const outer = Math.trunc((2 ** 24 - (2 * radius + 1) * inner) / 2);
  const step = across ? 3 : 3 * side;
  const last = (side - 1) * step;
  // Where a line's pixels stand: each pixel of the first row (going down), or each row's three channels (going across).
  for (let line = 0; line < side; line++) {
    for (let c = 0; c < 3; c++) {
      const begin = (across ? 3 * side * line : 3 * line) + c;
      const end = begin + last;
      let sum = from[begin]! * (radius + 1);
      for (let k = 0; k < radius; k++) sum += from[Math.min(begin + k * step, end)]!;
      let leaves = begin - (radius + 1) * step;
      let enters = begin + radius * step;
      for (let at = begin; at <= end; at += step, leaves += step, enters += step) {
        const left = from[leaves < begin ? begin : leaves]!;
        sum += from[enters > end ? end : enters]! - left;
        const right = from[enters + step > end ? end : enters + step]!;
        to[at] = (sum * inner + (left + right) * outer + HALF) >>> 24;
      }
    }
  }
}
