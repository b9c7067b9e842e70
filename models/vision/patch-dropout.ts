import { embedding, type Tensor2D, type Tensor3D, tf } from '../../engine/index.ts';

/**
 * Patch dropout (FLIP, Li et al. 2023, §3; open_clip's `PatchDropout`): in training the tower sees a random part of each picture's patches, and always
 * the class token. Shapes: B pictures, N patches, K of them kept.
 */
export interface PatchDropout {
  /** Share of the patches that is dropped, 0 ≤ rate < 1. */
  readonly rate: number;
  /** One for each sample; pictures are its views, all first ones before all second ones. */
  readonly seeds: Uint32Array;
  /** View of the first pictures, where views are encoded one at a time. Default 0. */
  readonly firstView?: number | undefined;
}

/** K, as open_clip counts: rounded down, at least one. */
export function keptPatchCount(patches: number, rate: number): number {
  return Math.max(1, Math.floor(patches * (1 - rate)));
}

/**
 * Indices of the patches that each picture keeps, ascending, [pictures × K]. A pure function of the sample's seed and the view, so that it is
 * the same whoever computes the sample, beside whichever others, and the second time too.
 */
export function keptPatches(
  { rate, seeds, firstView = 0 }: PatchDropout,
  pictures: number,
  patches: number,
): Int32Array {
  const count = keptPatchCount(patches, rate);
  const kept = new Int32Array(pictures * count);
  const keys = new Float64Array(patches);
  for (let picture = 0; picture < pictures; picture++) {
    const view = firstView + Math.floor(picture / seeds.length);
    const seed = hash32(seeds[picture % seeds.length]! ^ hash32(view + 1));
    // The hash above, the patch below: sorting the keys sorts the patches at random, and no two are equal.
    for (let patch = 0; patch < patches; patch++) keys[patch] = hash32(seed + patch) * patches + patch;
    const own = keys
      .sort()
      .slice(0, count)
      .map((key) => key % patches)
      .sort();
    kept.set(own, picture * count);
  }
  return kept;
}

/** Wellons 2018, "lowbias32". */
function hash32(value: number): number {
  let h = value >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x7feb352d);
  h = Math.imul(h ^ (h >>> 15), 0x846ca68b);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Rows `kept` of each picture: [B,K,P]. */
export function selectPatches(patches_BNP: Tensor3D, kept: Int32Array): Tensor3D {
  const [batch, patches, width] = patches_BNP.shape;
  const count = kept.length / batch;
  const rows = kept.map((patch, i) => Math.floor(i / count) * patches + patch);
  return tf.tidy(() => {
    const all = tf.reshape(patches_BNP, [batch * patches, width]);
    return tf.reshape(tf.gather(all, tf.tensor1d(rows, 'int32')), [batch, count, width]) as Tensor3D;
  });
}

/** The positions of the patches kept: float32 [B,K,D]. @param first rows of the table before the first patch's */
export function selectPositions(positions_TD: Tensor2D, kept: Int32Array, batch: number, first: number): Tensor3D {
  return tf.tidy(() => {
    const rows = kept.map((patch) => patch + first);
    return embedding(positions_TD, tf.tensor2d(rows, [batch, kept.length / batch], 'int32')) as Tensor3D;
  });
}
