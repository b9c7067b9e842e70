import { EigenvalueDecomposition, Matrix } from 'ml-matrix';
import { STD_RATIO } from '../../common/collapse.ts';
import { assert } from '../../common/errors.ts';

/**
 * How well embeddings use their space. Shapes: N rows, D dimensions. Everything is computed on the host in fp64 and row order: the numbers
 * depend on the rows alone.
 */
export interface EmbeddingSet {
  readonly name: string;
  readonly width: number;
  /** [N, D]; brought to unit length here. */
  readonly rows_ND: Float32Array;
  /** [N, D]: the other view or the caption of each row. Absent: nothing is said about pairs. */
  readonly partners_ND?: Float32Array;
}

/** How often each similarity occurs: equal bins over [low, high]. */
export interface SimilarityHistogram {
  readonly name: string;
  readonly low: number;
  readonly high: number;
  readonly counts: readonly number[];
}

export interface EmbeddingHealth {
  /** `<embedding>.<measure>` → value. */
  readonly measures: Readonly<Record<string, number>>;
  readonly similarities: readonly SimilarityHistogram[];
}

/** Bins of 0.05 over the cosines. */
const BINS = 40;
/** Wang & Isola 2020, equation 2: t. */
const UNIFORMITY_T = 2;
/** Keeps a singular value of 0 out of the logarithm, as in RankMe's equation 2. */
const RANK_EPSILON = 1e-7;

/**
 * - `std_ratio`: mean over dimensions of the standard deviation of unit-length rows, times √d (Chen & He 2021, §4.1): 1 spread, 0 collapsed
 * - `effective_rank`: exp of the entropy of the singular values (Roy & Vetterli 2007; RankMe, Garrido et al. 2023, equation 2)
 * - `uniformity`: log of the mean over pairs of exp(−2‖x − y‖²) (Wang & Isola 2020, equation 2): 0 collapsed, −4 spread
 * - `mean_similarity`: mean cosine of two different rows
 * - with partners: `alignment`, mean ‖x − x⁺‖² (equation 1, α = 2); `positive_similarity`, `negative_similarity`: mean cosine with the own
 *   partner and with the others', and both as histograms
 */
export function embeddingHealth(sets: readonly EmbeddingSet[]): EmbeddingHealth {
  const measures: Record<string, number> = {};
  const similarities: SimilarityHistogram[] = [];
  for (const { name, width, rows_ND, partners_ND } of sets) {
    const rows = unitRows(rows_ND, width);
    measures[`${name}.${STD_RATIO}`] = stdRatio(rows, width);
    measures[`${name}.effective_rank`] = effectiveRank(rows, width);
    Object.assign(measures, prefixed(name, spread(rows, width)));
    if (partners_ND === undefined) continue;
    const pairs = pairSimilarities(rows, unitRows(partners_ND, width), width);
    measures[`${name}.alignment`] = 2 - 2 * pairs.positive.mean;
    measures[`${name}.positive_similarity`] = pairs.positive.mean;
    measures[`${name}.negative_similarity`] = pairs.negative.mean;
    for (const kind of ['positive', 'negative'] as const) {
      similarities.push({ name: `${name}.${kind}`, low: -1, high: 1, counts: pairs[kind].counts });
    }
  }
  return { measures, similarities };
}

function prefixed(name: string, measures: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(measures).map(([measure, value]) => [`${name}.${measure}`, value]));
}

function unitRows(values: Float32Array, width: number): Float64Array {
  assert(values.length % width === 0 && values.length >= 2 * width, 'health is of at least two whole rows', {
    values: values.length,
    width,
  });
  const unit = Float64Array.from(values);
  for (let begin = 0; begin < unit.length; begin += width) {
    const row = unit.subarray(begin, begin + width);
    const norm = Math.sqrt(dot(row, row)) || 1;
    for (let d = 0; d < width; d++) row[d]! /= norm;
  }
  return unit;
}

function stdRatio(rows: Float64Array, width: number): number {
  const count = rows.length / width;
  let sum = 0;
  for (let d = 0; d < width; d++) {
    let mean = 0;
    for (let i = d; i < rows.length; i += width) mean += rows[i]! / count;
    let variance = 0;
    for (let i = d; i < rows.length; i += width) variance += (rows[i]! - mean) ** 2 / count;
    sum += Math.sqrt(variance);
  }
  return (sum / width) * Math.sqrt(width);
}

/** Singular values are square roots of the Gram matrix's eigenvalues; the smaller of the two Gram matrices has them all. */
function effectiveRank(rows: Float64Array, width: number): number {
  const count = rows.length / width;
  const gram = width <= count ? columnGram(rows, width) : rowGram(rows, width);
  const { realEigenvalues } = new EigenvalueDecomposition(gram, { assumeSymmetric: true });
  const singular = realEigenvalues.map((value) => Math.sqrt(Math.max(value, 0)));
  const total = singular.reduce((sum, value) => sum + value, 0);
  if (!(total > 0)) return Number.NaN;
  const entropy = singular.reduce((sum, value) => {
    const share = value / total + RANK_EPSILON;
    return sum - share * Math.log(share);
  }, 0);
  return Math.exp(entropy);
}

/** ZᵀZ, [D, D]. */
function columnGram(rows: Float64Array, width: number): Matrix {
  const gram = new Float64Array(width * width);
  for (let begin = 0; begin < rows.length; begin += width) {
    for (let i = 0; i < width; i++) {
      const own = rows[begin + i]!;
      for (let j = i; j < width; j++) gram[i * width + j]! += own * rows[begin + j]!;
    }
  }
  return symmetric(gram, width);
}

/** ZZᵀ, [N, N]. */
function rowGram(rows: Float64Array, width: number): Matrix {
  const count = rows.length / width;
  const gram = new Float64Array(count * count);
  for (let i = 0; i < count; i++) for (let j = i; j < count; j++) gram[i * count + j] = rowDot(rows, i, rows, j, width);
  return symmetric(gram, count);
}

/** From its upper triangle. */
function symmetric(upper: Float64Array, side: number): Matrix {
  const matrix = Matrix.zeros(side, side);
  for (let i = 0; i < side; i++) {
    for (let j = i; j < side; j++) {
      matrix.set(i, j, upper[i * side + j]!);
      matrix.set(j, i, upper[i * side + j]!);
    }
  }
  return matrix;
}

function spread(rows: Float64Array, width: number): { readonly uniformity: number; readonly mean_similarity: number } {
  const count = rows.length / width;
  let potential = 0;
  let similarity = 0;
  for (let i = 0; i < count; i++) {
    for (let j = i + 1; j < count; j++) {
      const cosine = rowDot(rows, i, rows, j, width);
      similarity += cosine;
      potential += Math.exp(-UNIFORMITY_T * (2 - 2 * cosine));
    }
  }
  const pairs = (count * (count - 1)) / 2;
  return { uniformity: Math.log(potential / pairs), mean_similarity: similarity / pairs };
}

function pairSimilarities(rows: Float64Array, partners: Float64Array, width: number) {
  const count = rows.length / width;
  const found = { positive: emptyTally(), negative: emptyTally() };
  for (let i = 0; i < count; i++) {
    for (let j = 0; j < count; j++) {
      const cosine = rowDot(rows, i, partners, j, width);
      const tally = found[i === j ? 'positive' : 'negative'];
      tally.sum += cosine;
      const bin = Math.floor(((cosine + 1) / 2) * BINS);
      tally.counts[Math.min(Math.max(bin, 0), BINS - 1)]!++;
    }
  }
  const { positive, negative } = found;
  return {
    positive: { mean: positive.sum / count, counts: positive.counts },
    negative: { mean: negative.sum / (count * (count - 1)), counts: negative.counts },
  };
}

const emptyTally = () => ({ sum: 0, counts: new Array<number>(BINS).fill(0) });

function rowDot(a: Float64Array, i: number, b: Float64Array, j: number, width: number): number {
  return dot(a.subarray(i * width, (i + 1) * width), b.subarray(j * width, (j + 1) * width));
}

function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0;
  for (let d = 0; d < a.length; d++) sum += a[d]! * b[d]!;
  return sum;
}
