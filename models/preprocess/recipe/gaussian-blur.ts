/** Weights below this share of the middle one cannot be seen in single precision, nor in 8 bits. */
const WEIGHT_MIN = 2 ** -24;

/** SimCLR's and BYOL's kernel reaches a twentieth of the side each way: 23 taps at 224. */
export function kernelRadius(side: number): number {
  return Math.trunc(side / 20);
}

/**
 * torchvision's gaussian_blur of a PIL picture: a true Gaussian of 2·radius + 1 taps, mirrored at the edge (without repeating the
 * edge pixel), rounded once. SimCLR's and BYOL's own pad with zeros instead, which darkens the border. In place; uint8 RGB [side, side, 3]; `scratch` has
 * as many floats. `radius` < side.
 */
export function blurGaussian(
  pixels: Uint8Array,
  side: number,
  blur: { readonly sigma: number; readonly radius: number },
  scratch: Float32Array,
): void {
  const weights = halfKernel(blur.sigma, blur.radius);
  if (weights.length === 1) return;
  across(pixels, side, weights, scratch);
  down(scratch, side, weights, pixels);
}

/** From the middle outwards; what cannot be seen is left out. */
function halfKernel(sigma: number, radius: number): Float64Array {
  const real = Array.from({ length: radius + 1 }, (_, x) => Math.exp(-0.5 * (x / sigma) ** 2));
  const sum = real.reduce((total, weight, x) => total + (x === 0 ? weight : 2 * weight), 0);
  return Float64Array.from(
    real.filter((weight) => weight >= WEIGHT_MIN),
    (weight) => weight / sum,
  );
}

/** Place of pixel k of a mirrored line. */
function mirrored(k: number, side: number): number {
  const at = Math.abs(k);
  return at < side ? at : 2 * (side - 1) - at;
}

function across(pixels: Uint8Array, side: number, weights: Float64Array, out: Float32Array): void {
  const reach = weights.length - 1;
  const line = new Float64Array(3 * (side + 2 * reach));
  for (let row = 0; row < pixels.length; row += 3 * side) {
    for (let x = -reach; x < side + reach; x++) {
      const from = row + 3 * mirrored(x, side);
      for (let c = 0; c < 3; c++) line[3 * (x + reach) + c] = pixels[from + c]!;
    }
    for (let i = 0; i < 3 * side; i++) {
      const middle = i + 3 * reach;
      let sum = line[middle]! * weights[0]!;
      for (let k = 1, off = 3; k <= reach; k++, off += 3)
        sum += (line[middle - off]! + line[middle + off]!) * weights[k]!;
      out[row + i] = sum;
    }
  }
}

function down(between: Float32Array, side: number, weights: Float64Array, out: Uint8Array): void {
  const reach = weights.length - 1;
  const rowFloats = 3 * side;
  const sums = new Float64Array(rowFloats);
  // Values lie within [0, 255] but for the rounding of the weights' sum.
  const clamped = new Uint8ClampedArray(out.buffer, out.byteOffset, out.byteLength);
  for (let y = 0; y < side; y++) {
    const middle = y * rowFloats;
    for (let i = 0; i < rowFloats; i++) sums[i] = between[middle + i]! * weights[0]!;
    for (let k = 1; k <= reach; k++) {
      const above = mirrored(y - k, side) * rowFloats;
      const below = mirrored(y + k, side) * rowFloats;
      const weight = weights[k]!;
      for (let i = 0; i < rowFloats; i++) sums[i]! += (between[above + i]! + between[below + i]!) * weight;
    }
    clamped.set(sums, middle);
  }
}
