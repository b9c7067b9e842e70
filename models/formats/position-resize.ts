import { CoveyError } from '../../common/errors.ts';
import { bicubic } from '../preprocess/pil-resize.ts';
import type { PositionGrid } from '../vision/position-grid.ts';
import type { HostTensor } from './safetensors.ts';

/** Weights by which each of `outSize` places takes from `inSize` ones, [outSize][inSize]. */
function cubicWeights(inSize: number, outSize: number): Float64Array[] {
  const scale = inSize / outSize;
  // Antialiasing: where the picture shrinks, the kernel widens by as much (PyTorch, UpSampleKernel.cpp, compute_indices_weights_aa).
  const width = Math.max(scale, 1);
  return Array.from({ length: outSize }, (_, i) => {
    const center = scale * (i + 0.5);
    const begin = Math.max(Math.trunc(center - 2 * width + 0.5), 0);
    const end = Math.min(Math.trunc(center + 2 * width + 0.5), inSize);
    const weights = new Float64Array(inSize);
    let sum = 0;
    for (let x = begin; x < end; x++) {
      weights[x] = bicubic((x - center + 0.5) / width);
      sum += weights[x]!;
    }
    return weights.map((weight) => weight / sum);
  });
}

/**
 * Learnt positions for another grid, as open_clip's `resize_pos_embed`: the class token's row is kept, the others are resized as a picture
 * of D channels, bicubic with antialiasing, `align_corners` False.
 * @param positions_TD row 0 of the class token, where there is one, then the old grid by rows
 * @param grid the new one
 * @throws CoveyError DATA_CORRUPT where the old grid is no square
 */
export function resizePositions(
  positions_TD: HostTensor,
  { side: grid, firstTokens }: Pick<PositionGrid, 'side' | 'firstTokens'>,
): HostTensor {
  const [rows = 0, width = 0] = positions_TD.shape;
  const oldGrid = Math.round(Math.sqrt(rows - firstTokens));
  if (positions_TD.shape.length !== 2 || oldGrid < 1 || oldGrid ** 2 + firstTokens !== rows) {
    throw new CoveyError(
      'DATA_CORRUPT',
      `Cannot resize the positions: [${positions_TD.shape}] is not ${firstTokens === 1 ? 'a class token and ' : ''}a square grid`,
      { fields: { shape: positions_TD.shape } },
    );
  }
  if (oldGrid === grid) return positions_TD;
  const weights = cubicWeights(oldGrid, grid);
  const across = resizeAxis(
    Float64Array.from(positions_TD.values.subarray(firstTokens * width)),
    oldGrid,
    weights,
    width,
  );
  const both = resizeAxis(across, 1, weights, grid * width);
  const values = new Float32Array((grid ** 2 + firstTokens) * width);
  values.set(positions_TD.values.subarray(0, firstTokens * width));
  values.set(both, firstTokens * width);
  return { shape: [grid ** 2 + firstTokens, width], values };
}

/** [outer, inSize, inner] → [outer, outSize, inner]. */
function resizeAxis(
  source: Float64Array,
  outer: number,
  weights: readonly Float64Array[],
  inner: number,
): Float64Array {
  const inSize = weights[0]!.length;
  const out = new Float64Array(outer * weights.length * inner);
  for (let o = 0; o < outer; o++) {
    for (const [i, taps] of weights.entries()) {
      const to = (o * weights.length + i) * inner;
      for (let x = 0; x < inSize; x++) {
        const weight = taps[x]!;
        if (weight === 0) continue;
        const from = (o * inSize + x) * inner;
        for (let k = 0; k < inner; k++) out[to + k]! += weight * source[from + k]!;
      }
    }
  }
  return out;
}
