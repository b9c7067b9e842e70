/** ITU-R BT.601 luma, as PIL's convert('L') and torchvision. */
const LUMA = [0.299, 0.587, 0.114] as const;
const MIDDLE_GREY = 128;

export interface ColorJitter {
  /** Factors; 1 changes nothing. */
  readonly brightness: number;
  readonly contrast: number;
  readonly saturation: number;
  /** Turns about the grey axis; 0 changes nothing. */
  readonly hue: number;
  readonly grayscale: boolean;
}

/**
 * Brightness, contrast, saturation, hue and grayscale, in this order, as one affine map of 8-bit RGB: row-major 3×4, the last
 * column added. Unlike torchvision's, contrast turns about middle grey instead of the picture's mean, hue turns in YIQ,
 * values are clamped once at the end and the order is fixed; so all of it costs nine products a pixel.
 */
export function colorMatrix(jitter: ColorJitter): Float64Array {
  const { brightness, contrast } = jitter;
  const saturation = jitter.grayscale ? 0 : jitter.saturation;
  const turned = hueRotation(jitter.hue);
  const matrix = new Float64Array(12);
  const offset = (1 - contrast) * MIDDLE_GREY;
  for (let row = 0; row < 3; row++) {
    for (let column = 0; column < 3; column++) {
      let sum = 0;
      for (let k = 0; k < 3; k++) {
        sum += turned[3 * row + k]! * ((1 - saturation) * LUMA[column]! + (k === column ? saturation : 0));
      }
      matrix[4 * row + column] = sum * contrast * brightness;
    }
    // Saturation and hue leave greys alone, so the offset passes through them.
    matrix[4 * row + 3] = offset;
  }
  return matrix;
}

/** Rotation of the IQ plane of NTSC YIQ, as a 3×3 matrix on RGB. */
function hueRotation(turns: number): Float64Array {
  const cos = Math.cos(2 * Math.PI * turns);
  const sin = Math.sin(2 * Math.PI * turns);
  const toYiq = [LUMA, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]] as const;
  const toRgb = [
    [1, 0.9563, 0.621],
    [1, -0.2721, -0.6474],
    [1, -1.107, 1.7046],
  ] as const;
  const out = new Float64Array(9);
  for (let row = 0; row < 3; row++) {
    const [y, i, q] = toRgb[row]!;
    for (let column = 0; column < 3; column++) {
      const turnedI = cos * toYiq[1][column]! - sin * toYiq[2][column]!;
      const turnedQ = sin * toYiq[1][column]! + cos * toYiq[2][column]!;
      out[3 * row + column] = y * toYiq[0][column]! + i * turnedI + q * turnedQ;
    }
  }
  return out;
}
