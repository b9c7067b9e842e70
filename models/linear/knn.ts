import { CoveyError } from '../../common/errors.ts';
import { tf } from '../../engine/index.ts';
import { unitRows } from './unit-rows.ts';

/** Features and classes to look among. Rows need not have unit length: similarity is the cosine. */
export interface NeighbourBank {
  readonly features_ND: Float32Array;
  readonly dimensions: number;
}

export interface Neighbours {
  readonly count: number;
  /** [Q, count]: rows of the bank, nearest first; of equals the first row. */
  readonly rows_QC: Int32Array;
  /** Cosine similarities of these. */
  readonly similarities_QC: Float32Array;
}

export interface NeighbourOptions {
  /** At most as many as the bank has. */
  readonly count: number;
  /** Row of the bank that a query is itself, and that is not its neighbour; −1 for none. */
  readonly selfRow?: (query: number) => number;
}

/** Similarities held at once: 4 MiB a tile. */
const TILE_SIMILARITIES = 2 ** 20;

/** The nearest rows of the bank to each query, by cosine, on the active engine in tiles of queries. */
export function nearestNeighbours(
  bank: NeighbourBank,
  queries_QD: Float32Array,
  options: NeighbourOptions,
): Neighbours {
  const { dimensions } = bank;
  const bankRows = bank.features_ND.length / dimensions;
  const queries = queries_QD.length / dimensions;
  const { selfRow } = options;
  const count = Math.min(options.count, bankRows - (selfRow === undefined ? 0 : 1));
  if (!(count >= 1) || !Number.isInteger(queries) || !Number.isInteger(bankRows)) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot find neighbours: ${options.count} wanted of ${bankRows} rows for ${queries} queries; at least one neighbour and whole rows are needed`,
      { fields: { count: options.count, bankRows, queries } },
    );
  }
  const rows_QC = new Int32Array(queries * count);
  const similarities_QC = new Float32Array(queries * count);
  const bank_ND = tf.tensor2d(unitRows(bank.features_ND, dimensions), [bankRows, dimensions]);
  const tile = Math.max(1, Math.floor(TILE_SIMILARITIES / bankRows));
  try {
    for (let begin = 0; begin < queries; begin += tile) {
      const size = Math.min(tile, queries - begin);
      const unit = unitRows(queries_QD.subarray(begin * dimensions, (begin + size) * dimensions), dimensions);
      const similarities = tf.tidy(() =>
        tf.matMul(tf.tensor2d(unit, [size, dimensions]), bank_ND, false, true).dataSync<'float32'>(),
      ) as unknown as Float32Array;
      for (let q = 0; q < size; q++) {
        const row = similarities.subarray(q * bankRows, (q + 1) * bankRows);
        const own = selfRow?.(begin + q) ?? -1;
        const best = largest(row, count, own);
        best.forEach((bankRow, c) => {
          rows_QC[(begin + q) * count + c] = bankRow;
          similarities_QC[(begin + q) * count + c] = row[bankRow]!;
        });
      }
    }
  } finally {
    bank_ND.dispose();
  }
  return { count, rows_QC, similarities_QC };
}

export interface KnnVote {
  readonly classes: number;
  /**
   * Weight of a neighbour of cosine s is exp(s/temperature) (Wu et al. 2018, §3.4, and DINO's `eval_knn.py`: 0.07); undefined: each counts one.
   */
  readonly temperature?: number | undefined;
}

/** Summed votes [Q,K] of the neighbours' classes, relative to the nearest one's, so that nothing overflows. */
export function classVotes(neighbours: Neighbours, bankLabels_N: Int32Array, vote: KnnVote): Float64Array {
  const { count, rows_QC, similarities_QC } = neighbours;
  const { classes, temperature } = vote;
  const votes_QK = new Float64Array((rows_QC.length / count) * classes);
  for (let i = 0; i < rows_QC.length; i++) {
    const query = Math.floor(i / count);
    const nearest = similarities_QC[query * count]!;
    const weight = temperature === undefined ? 1 : Math.exp((similarities_QC[i]! - nearest) / temperature);
    votes_QK[query * classes + bankLabels_N[rows_QC[i]!]!]! += weight;
  }
  return votes_QK;
}

/** Rows of the largest values, best first; of equals the first row. */
function largest(values: Float32Array, count: number, skipped: number): number[] {
  const best: number[] = [];
  for (let row = 0; row < values.length; row++) {
    if (row === skipped) continue;
    const value = values[row]!;
    if (best.length === count && !(value > values[best[count - 1]!]!)) continue;
    let at = best.length;
    while (at > 0 && value > values[best[at - 1]!]!) at--;
    best.splice(at, 0, row);
    if (best.length > count) best.pop();
  }
  return best;
}
