import { keptPatches } from './patch-dropout.ts';

/**
 * Which patches a masked autoencoder sees and which it predicts (MAE, He et al. 2022, §3; `models_mae.py:random_masking`). Shapes: B pictures of
 * N patches, K of them visible, M = N − K hidden.
 */
export interface PatchMask {
  /** Places of each picture's visible patches, ascending: [B·K]. */
  readonly visible: Int32Array;
  /** Places of the others, ascending: [B·M]. */
  readonly hidden: Int32Array;
}

/** K = ⌊N·(1 − ratio)⌋ as in MAE's code, and M: the same for every picture. */
export function maskedCounts(
  patches: number,
  maskRatio: number,
): { readonly visible: number; readonly hidden: number } {
  const visible = Math.floor(patches * (1 - maskRatio));
  return { visible, hidden: patches - visible };
}

/**
 * The first K of each picture's patches in the order of noise that is drawn from the picture's seed alone, so that a mask is the same whoever
 * computes the picture, beside whichever others, and the second time too.
 */
export function patchMask(seeds: Uint32Array, patches: number, maskRatio: number): PatchMask {
  const visible = keptPatches({ rate: maskRatio, seeds }, seeds.length, patches);
  const count = visible.length / seeds.length;
  const hidden = new Int32Array(seeds.length * patches - visible.length);
  let end = 0;
  for (let picture = 0; picture < seeds.length; picture++) {
    const seen = new Set(visible.subarray(picture * count, (picture + 1) * count));
    for (let patch = 0; patch < patches; patch++) if (!seen.has(patch)) hidden[end++] = patch;
  }
  return { visible, hidden };
}

/** Places within all pictures' rows, of which each picture has so many, instead of within its own. */
export function rowsOfAll(places: Int32Array, batch: number, rowsPerPicture: number, first = 0): Int32Array {
  const count = places.length / batch;
  return places.map((place, i) => Math.floor(i / count) * rowsPerPicture + first + place);
}
