import { CoveyError, throwIfAborted } from '../../../common/errors.ts';
import { principalComponents } from './pca.ts';

export interface TsneOptions {
  /** Effective number of neighbours; lowered to a third of the points. Default 30. */
  readonly perplexity?: number;
  readonly iterations?: number;
  readonly signal?: AbortSignal | undefined;
}

/** All pairs are held: 8 MB a matrix. */
export const TSNE_POINTS_MAX = 1000;
export const TSNE_POINTS_MIN = 4;
const PERPLEXITY = 30;
const ITERATIONS = 750;
const EXAGGERATION = 12;
const EXAGGERATED_ITERATIONS = 250;
const [MOMENTUM_FIRST, MOMENTUM] = [0.5, 0.8];
const GAIN_MIN = 0.01;
const P_MIN = 1e-12;
/** Spread of the first places, as scikit-learn has it with `init='pca'`. */
const START_DEVIATION = 1e-4;
const BANDWIDTH_STEPS = 60;

/**
 * Exact t-SNE (van der Maaten & Hinton 2008, algorithm 1, with early exaggeration and per-place gains) of rows [N,D] in the plane: [N,2]. It begins at the
 * first two principal components and draws nothing, so equal rows give equal pictures; the learning rate is N/12, at least 50 (Belkina et al. 2019).
 * @throws CoveyError INVALID_ARGUMENT for more than 1,000 rows, or fewer than four
 */
export function tsne(rows_ND: Float32Array, dimensions: number, options: TsneOptions = {}): Float64Array {
  const points = rows_ND.length / dimensions;
  if (points > TSNE_POINTS_MAX || points < TSNE_POINTS_MIN) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot draw t-SNE of ${points} points: exact t-SNE takes ${TSNE_POINTS_MIN} to ${TSNE_POINTS_MAX}; take a part of them`,
      { fields: { points } },
    );
  }
  const { iterations = ITERATIONS, signal } = options;
  const perplexity = Math.min(options.perplexity ?? PERPLEXITY, (points - 1) / 3);
  const p_NN = jointProbabilities(rows_ND, dimensions, perplexity);
  const y = startingPlaces(rows_ND, dimensions);
  const velocity = new Float64Array(y.length);
  const gains = new Float64Array(y.length).fill(1);
  const gradient = new Float64Array(y.length);
  const q_NN = new Float64Array(points * points);
  const rate = Math.max(points / EXAGGERATION, 50);
  for (let iteration = 0; iteration < iterations; iteration++) {
    throwIfAborted(signal);
    const isEarly = iteration < EXAGGERATED_ITERATIONS;
    slopes(y, p_NN, isEarly ? EXAGGERATION : 1, q_NN, gradient);
    const momentum = isEarly ? MOMENTUM_FIRST : MOMENTUM;
    for (let i = 0; i < y.length; i++) {
      const isAlong = gradient[i]! > 0 === velocity[i]! > 0;
      gains[i] = Math.max(GAIN_MIN, isAlong ? gains[i]! * 0.8 : gains[i]! + 0.2);
      velocity[i] = momentum * velocity[i]! - rate * gains[i]! * gradient[i]!;
      y[i]! += velocity[i]!;
    }
  }
  return y;
}

/** (p_j|i + p_i|j) / 2N, each row's Gaussian as wide as the perplexity wants (§2, eq. 1, found by bisection). */
function jointProbabilities(rows_ND: Float32Array, dimensions: number, perplexity: number): Float64Array {
  const points = rows_ND.length / dimensions;
  const distances_NN = squaredDistances(rows_ND, dimensions);
  const conditional_NN = new Float64Array(points * points);
  for (let i = 0; i < points; i++) {
    const at = i * points;
    const row = distances_NN.subarray(at, at + points);
    const nearest = row.reduce(
      (least, value, j) => (j === i ? least : Math.min(least, value)),
      Number.POSITIVE_INFINITY,
    );
    let [low, high, precision] = [0, Number.POSITIVE_INFINITY, 1 / Math.max(nearest, P_MIN)];
    for (let step = 0; step < BANDWIDTH_STEPS; step++) {
      let sum = 0;
      let weighted = 0;
      for (let j = 0; j < points; j++) {
        const p = j === i ? 0 : Math.exp(-precision * (row[j]! - nearest));
        conditional_NN[at + j] = p;
        sum += p;
        weighted += p * (row[j]! - nearest);
      }
      for (let j = 0; j < points; j++) conditional_NN[at + j]! /= sum;
      const entropy = Math.log(sum) + (precision * weighted) / sum;
      const excess = entropy - Math.log(perplexity);
      if (Math.abs(excess) < 1e-5) break;
      if (excess > 0) low = precision;
      else high = precision;
      precision = high === Number.POSITIVE_INFINITY ? precision * 2 : (low + high) / 2;
    }
  }
  const p_NN = new Float64Array(points * points);
  for (let i = 0; i < points; i++) {
    for (let j = 0; j < points; j++) {
      const both = conditional_NN[i * points + j]! + conditional_NN[j * points + i]!;
      p_NN[i * points + j] = Math.max(both / (2 * points), P_MIN);
    }
  }
  return p_NN;
}

function squaredDistances(rows_ND: Float32Array, dimensions: number): Float64Array {
  const points = rows_ND.length / dimensions;
  const distances_NN = new Float64Array(points * points);
  for (let i = 0; i < points; i++) {
    for (let j = 0; j < i; j++) {
      let sum = 0;
      for (let d = 0; d < dimensions; d++) sum += (rows_ND[i * dimensions + d]! - rows_ND[j * dimensions + d]!) ** 2;
      distances_NN[i * points + j] = sum;
      distances_NN[j * points + i] = sum;
    }
  }
  return distances_NN;
}

function startingPlaces(rows_ND: Float32Array, dimensions: number): Float64Array {
  const { scores } = principalComponents(rows_ND, dimensions, 2);
  const points = scores.length / 2;
  const variance = scores.reduce((sum, score, i) => sum + (i % 2 === 0 ? score * score : 0), 0) / points;
  return scores.map((score) => (score / (Math.sqrt(variance) || 1)) * START_DEVIATION);
}

/** 4·Σ_j (p_ij − q_ij)·(y_i − y_j) / (1 + ‖y_i − y_j‖²) (eq. 5). */
function slopes(y: Float64Array, p_NN: Float64Array, factor: number, q_NN: Float64Array, out: Float64Array): void {
  const points = y.length / 2;
  let sum = 0;
  for (let i = 0; i < points; i++) {
    for (let j = 0; j < i; j++) {
      const [dx, dy] = [y[2 * i]! - y[2 * j]!, y[2 * i + 1]! - y[2 * j + 1]!];
      const q = 1 / (1 + dx * dx + dy * dy);
      q_NN[i * points + j] = q;
      sum += 2 * q;
    }
  }
  out.fill(0);
  for (let i = 0; i < points; i++) {
    for (let j = 0; j < i; j++) {
      const q = q_NN[i * points + j]!;
      const pull = 4 * (factor * p_NN[i * points + j]! - q / sum) * q;
      const [dx, dy] = [y[2 * i]! - y[2 * j]!, y[2 * i + 1]! - y[2 * j + 1]!];
      out[2 * i]! += pull * dx;
      out[2 * i + 1]! += pull * dy;
      out[2 * j]! -= pull * dx;
      out[2 * j + 1]! -= pull * dy;
    }
  }
}
