import type { Augmentation } from './augmentation.ts';

/** Value of what lies outside the source: white, on which transparency was flattened too. */
export const BACKGROUND = 255;
/** Sub-samples per axis and output pixel in the rotated path; beyond this much shrinking a little aliasing is accepted. */
const SUBSAMPLES_MAX = 4;

export interface WarpSource {
  /** uint8 RGB, [height, width, 3]. */
  readonly pixels: Uint8Array;
  readonly width: number;
  readonly height: number;
}

/**
 * Crop, shift, zoom, rotate, flip and resize in one bilinear pass (antialiased where it shrinks), with colour changes applied to
 * the unrounded values. Keeps its scratch memory: one picture costs no allocation once warm. Not to be shared by threads.
 *
 * Pixels whose centre falls outside the source take BACKGROUND; inside, taps are clipped at the edge as PIL does.
 */
export class Warp {
  readonly #side: number;
  readonly #columns: AxisTaps;
  readonly #rows: AxisTaps;
  /** Columns done, rows not yet: [source rows, side, 3]. */
  #between = new Float32Array(0);
  readonly #sum = new Float64Array(3);

  constructor(options: { readonly side: number }) {
    this.#side = options.side;
    this.#columns = new AxisTaps(options.side);
    this.#rows = new AxisTaps(options.side);
  }

  /** Writes [side, side, 3] into `into`. `color` is a 3×4 matrix (see colorMatrix) or null. `rotated` chooses the path by config, not by draw. */
  run(
    source: WarpSource,
    augmentation: Augmentation,
    color: Float64Array | null,
    into: Uint8ClampedArray,
    rotated: boolean,
  ): void {
    if (rotated) this.#rotate(source, augmentation, color, into);
    else this.#separable(source, augmentation, color, into);
  }

  /** Output coordinate i ↦ crop middle ± ((i + ½)/side − ½ − shift)/zoom · crop size. */
  #separable(source: WarpSource, view: Augmentation, color: Float64Array | null, into: Uint8ClampedArray): void {
    const { crop, zoom } = view;
    const side = this.#side;
    const stepX = ((view.flip ? -1 : 1) * crop.width) / (zoom * side);
    const stepY = crop.height / (zoom * side);
    // A flip mirrors what the shift has moved.
    this.#columns.set(source.width, crop.left + crop.width / 2 + (0.5 - side / 2 - view.shiftX * side) * stepX, stepX);
    this.#rows.set(source.height, crop.top + crop.height / 2 + (0.5 - side / 2 - view.shiftY * side) * stepY, stepY);
    const { first, end } = this.#rows;
    const needed = Math.max(end - first, 0) * side * 3;
    if (this.#between.length < needed) this.#between = new Float32Array(needed);
    this.#filterColumns(source, first, end);
    this.#filterRows(first, color, into);
  }

  #filterColumns(source: WarpSource, first: number, end: number): void {
    const side = this.#side;
    const { starts, counts, weights, stride } = this.#columns;
    const { pixels, width } = source;
    const between = this.#between;
    let to = 0;
    for (let row = first; row < end; row++) {
      const rowBegin = row * width;
      for (let x = 0; x < side; x++) {
        const count = counts[x]!;
        let r = count === 0 ? BACKGROUND : 0;
        let g = r;
        let b = r;
        let from = (rowBegin + starts[x]!) * 3;
        const begin = x * stride;
        for (let k = begin; k < begin + count; k++) {
          const weight = weights[k]!;
          r += pixels[from]! * weight;
          g += pixels[from + 1]! * weight;
          b += pixels[from + 2]! * weight;
          from += 3;
        }
        between[to] = r;
        between[to + 1] = g;
        between[to + 2] = b;
        to += 3;
      }
    }
  }

  #filterRows(first: number, color: Float64Array | null, into: Uint8ClampedArray): void {
    const side = this.#side;
    const { starts, counts, weights, stride } = this.#rows;
    const between = this.#between;
    const rowFloats = side * 3;
    let to = 0;
    for (let y = 0; y < side; y++) {
      const count = counts[y]!;
      const begin = y * stride;
      const rowBegin = (starts[y]! - first) * rowFloats;
      for (let x = 0; x < side; x++) {
        let r = count === 0 ? BACKGROUND : 0;
        let g = r;
        let b = r;
        let from = rowBegin + 3 * x;
        for (let k = begin; k < begin + count; k++) {
          const weight = weights[k]!;
          r += between[from]! * weight;
          g += between[from + 1]! * weight;
          b += between[from + 2]! * weight;
          from += rowFloats;
        }
        store(into, to, color, r, g, b);
        to += 3;
      }
    }
  }

  #rotate(source: WarpSource, view: Augmentation, color: Float64Array | null, into: Uint8ClampedArray): void {
    const side = this.#side;
    const { crop, zoom } = view;
    const cos = Math.cos(view.rotateRadians) / (zoom * side);
    const sin = Math.sin(view.rotateRadians) / (zoom * side);
    const mirror = view.flip ? -1 : 1;
    const uX = mirror * cos * crop.width;
    const uY = mirror * sin * crop.width;
    const vX = -sin * crop.height;
    const vY = cos * crop.height;
    const shrink = Math.max(Math.hypot(uX, vX), Math.hypot(uY, vY));
    const samples = Math.min(Math.max(Math.ceil(shrink - 0.01), 1), SUBSAMPLES_MAX);
    const originX = side / 2 + view.shiftX * side;
    const originY = side / 2 + view.shiftY * side;
    const middleU = crop.left + crop.width / 2;
    const middleV = crop.top + crop.height / 2;
    const sum = this.#sum;
    let to = 0;
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        sum[0] = sum[1] = sum[2] = 0;
        for (let sy = 0; sy < samples; sy++) {
          const dy = y + (sy + 0.5) / samples - originY;
          for (let sx = 0; sx < samples; sx++) {
            const dx = x + (sx + 0.5) / samples - originX;
            addBilinear(source, middleU + uX * dx + uY * dy, middleV + vX * dx + vY * dy, sum);
          }
        }
        const scale = 1 / (samples * samples);
        store(into, to, color, sum[0]! * scale, sum[1]! * scale, sum[2]! * scale);
        to += 3;
      }
    }
  }
}

/** Antialiased triangle filter of one axis (Pillow's Resample.c in floating point). A count of 0 means: outside the source. */
class AxisTaps {
  readonly starts: Int32Array;
  readonly counts: Int32Array;
  weights = new Float32Array(0);
  stride = 0;
  /** Source rows any output needs: [first, end). */
  first = 0;
  end = 0;

  constructor(side: number) {
    this.starts = new Int32Array(side);
    this.counts = new Int32Array(side);
  }

  /** Output i is centred at `center0` + i·`step`, in source coordinates (pixel k covers [k, k+1)). */
  set(size: number, center0: number, step: number): void {
    const { starts, counts } = this;
    const side = starts.length;
    const support = Math.max(Math.abs(step), 1);
    this.stride = Math.ceil(support) * 2 + 1;
    if (this.weights.length < side * this.stride) this.weights = new Float32Array(side * this.stride);
    this.first = size;
    this.end = 0;
    for (let i = 0; i < side; i++) {
      const center = center0 + i * step;
      counts[i] = 0;
      starts[i] = 0;
      if (center < 0 || center > size) continue;
      const begin = Math.max(Math.trunc(center - support + 0.5), 0);
      const end = Math.min(Math.trunc(center + support + 0.5), size);
      this.#weigh(i, center, support, begin, end);
      if (begin < this.first) this.first = begin;
      if (end > this.end) this.end = end;
    }
    // Outputs outside the source read nothing; their start only has to be a valid row.
    for (let i = 0; i < side; i++) if (counts[i] === 0) starts[i] = this.first;
  }

  #weigh(i: number, center: number, support: number, begin: number, end: number): void {
    const at = i * this.stride;
    let sum = 0;
    for (let k = begin; k < end; k++) {
      const weight = Math.max(1 - Math.abs((k + 0.5 - center) / support), 0);
      this.weights[at + k - begin] = weight;
      sum += weight;
    }
    for (let k = 0; k < end - begin; k++) this.weights[at + k]! /= sum;
    this.starts[i] = begin;
    this.counts[i] = end - begin;
  }
}

/** Adds the source's value at (u, v) to `sum`; BACKGROUND outside, the edge pixel within half a pixel of it. */
function addBilinear(source: WarpSource, u: number, v: number, sum: Float64Array): void {
  const { pixels, width, height } = source;
  if (!(u >= 0 && u <= width && v >= 0 && v <= height)) {
    sum[0]! += BACKGROUND;
    sum[1]! += BACKGROUND;
    sum[2]! += BACKGROUND;
    return;
  }
  const x = Math.min(Math.max(u - 0.5, 0), width - 1);
  const y = Math.min(Math.max(v - 0.5, 0), height - 1);
  const x0 = Math.trunc(x);
  const y0 = Math.trunc(y);
  const right = x - x0;
  const low = y - y0;
  const nextX = x0 + 1 < width ? 3 : 0;
  const topLeft = (y0 * width + x0) * 3;
  const bottomLeft = y0 + 1 < height ? topLeft + width * 3 : topLeft;
  const w00 = (1 - right) * (1 - low);
  const w01 = right * (1 - low);
  const w10 = (1 - right) * low;
  const w11 = right * low;
  for (let c = 0; c < 3; c++) {
    const top = pixels[topLeft + c]! * w00 + pixels[topLeft + nextX + c]! * w01;
    const bottom = pixels[bottomLeft + c]! * w10 + pixels[bottomLeft + nextX + c]! * w11;
    sum[c]! += top + bottom;
  }
}

/** The clamped array rounds and clamps. */
function store(into: Uint8ClampedArray, to: number, color: Float64Array | null, r: number, g: number, b: number): void {
  if (color === null) {
    into[to] = r;
    into[to + 1] = g;
    into[to + 2] = b;
    return;
  }
  into[to] = color[0]! * r + color[1]! * g + color[2]! * b + color[3]!;
  into[to + 1] = color[4]! * r + color[5]! * g + color[6]! * b + color[7]!;
  into[to + 2] = color[8]! * r + color[9]! * g + color[10]! * b + color[11]!;
}
