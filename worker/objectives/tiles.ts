import {
  type Engine,
  type SimilarityKernels,
  similarityKernels,
  type Tensor1D,
  type Tensor2D,
  tf,
} from '../../engine/index.ts';

/**
 * What tiled losses share. Shapes: R rows of a lane, K rows of all lanes, D embedding width, C columns of a tile.
 */

/** Columns handled at once. Fixed, so that the order of additions depends on the global batch alone. */
const TILE_COLUMNS = 4096;

/** Lanes of more rows use the engine's kernels; those of at most so many keep the bits that they had before there were any. */
const COMPOSED_ROWS_MAX = 64;

/** The engine's own sums over pairs for so many rows; undefined where they are composed of tiles. */
export function kernelsFor(rows: number): SimilarityKernels | undefined {
  return rows > COMPOSED_ROWS_MAX ? similarityKernels() : undefined;
}

export interface RowRange {
  readonly begin: number;
  readonly count: number;
}

export function rowsOf(x_KD: Tensor2D, rows: RowRange): Tensor2D {
  return tf.slice(x_KD, [rows.begin, 0], [rows.count, x_KD.shape[1]]);
}

export function tilesOf(count: number): RowRange[] {
  const tiles = [];
  for (let begin = 0; begin < count; begin += TILE_COLUMNS)
    tiles.push({ begin, count: Math.min(TILE_COLUMNS, count - begin) });
  return tiles;
}

/** Log-sum-exp over all columns of a matrix that is made tile by tile: [R]. Tiles are merged in order, each shifted by its maximum. */
export function logSumExpOfTiles(columns: number, logits_RC: (tile: RowRange) => Tensor2D): Tensor1D {
  let merged: Tensor1D | undefined;
  for (const tile of tilesOf(columns)) {
    const tile_R = tf.tidy(() => tf.logSumExp(logits_RC(tile), 1) as Tensor1D);
    merged = merged === undefined ? tile_R : (tf.logSumExp(tf.stack([merged, tile_R]), 0) as Tensor1D);
  }
  return merged!;
}

/** Adds where there is something to add to: the running sum over tiles. */
export function addTile<T extends tf.Tensor>(sum: T | undefined, tile: T): T {
  return sum === undefined ? tile : (tf.add(sum, tile) as T);
}

/** Host sum in fp64 and row order: its bits do not depend on threads. */
export function hostSum(engine: Engine, x_R: Tensor1D): number {
  const values = new Float32Array(x_R.shape[0]);
  engine.readInto(x_R, values);
  let sum = 0;
  for (const value of values) sum += value;
  return sum;
}
