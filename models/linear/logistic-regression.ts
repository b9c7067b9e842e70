import { CoveyError } from '../../common/errors.ts';
import { minimize, type SmoothFunction } from './lbfgs.ts';
import { engineProducts, hostProducts, isSmall, type MatrixProducts } from './matrix-products.ts';

/** Legend: N samples, D dimensions, K classes; everything row-major. */
export interface LabelledFeatures {
  readonly features_ND: Float32Array;
  /** Class of each sample, 0 to K − 1. */
  readonly labels_N: Int32Array;
  readonly dimensions: number;
}

export interface LinearClassifier {
  readonly dimensions: number;
  readonly classes: number;
  readonly weights_DK: Float64Array;
  readonly bias_K: Float64Array;
}

export interface LogisticOptions {
  readonly classes: number;
  /** λ of mean cross-entropy + λ/2·‖W‖²; the bias is not penalised. scikit-learn's C is 1/(N·λ). */
  readonly l2: number;
  /** Ends where ‖gradient‖ ≤ this times ‖gradient at zero weights‖. Default 1e-5. */
  readonly tolerance?: number;
  readonly iterationsMax?: number;
  /** A classifier of the same sizes to start from: the neighbour in a sweep. Default: zeros. */
  readonly start?: LinearClassifier;
  /** Where the products are computed. Default: by size, `host` (fp64) for small ones, else `engine` with an fp64 finish. */
  readonly products?: 'host' | 'engine';
}

export interface LogisticFit {
  readonly classifier: LinearClassifier;
  /** The objective at the optimum: mean cross-entropy + penalty. */
  readonly objective: number;
  /** ‖gradient‖ at the optimum, computed in fp64; and divided by that at zero weights. */
  readonly gradientNorm: number;
  readonly gradientNormRelative: number;
  readonly iterations: number;
  readonly evaluations: number;
  /** The tolerance was reached within the iterations allowed. */
  readonly converged: boolean;
}

const TOLERANCE = 1e-5;
const ITERATIONS_MAX = 5000;
/** fp32 products are followed a little further than asked for, so that fp64 usually only confirms. */
const ENGINE_MARGIN = 0.8;

/**
 * Multinomial logistic regression with an L2 penalty, solved as the convex problem it is. Features are centred for the solver, which changes
 * nothing but its speed: the bias is free. Large problems go through fp32 products first and are finished in fp64, so the optimum is the same.
 * @throws CoveyError INVALID_ARGUMENT for no samples, one class only, a label that is no class, a feature that is no number, or λ ≤ 0
 */
export function fitLogistic(samples: LabelledFeatures, options: LogisticOptions): LogisticFit {
  checkProblem(samples, options);
  const { classes, l2, start } = options;
  const { dimensions, labels_N } = samples;
  const { centred_ND, mean_D } = centred(samples);
  const matrix = { values_ND: centred_ND, dimensions, classes };
  const problem = { labels_N, dimensions, classes, l2 };
  const host = hostProducts(matrix);
  const exact = objectiveOf(problem, host);
  const gradient = new Float64Array(exact.size);
  const zero = new Float64Array(exact.size);
  exact.evaluate(zero, gradient);
  const scale = Math.hypot(...blockNorms(gradient));
  const gradientNormMax = (options.tolerance ?? TOLERANCE) * scale;
  const iterationsMax = options.iterationsMax ?? ITERATIONS_MAX;
  let x = start === undefined ? zero : toCentred(start, mean_D);
  let iterations = 0;
  let evaluations = 1;
  const where = options.products ?? (isSmall(matrix) ? 'host' : 'engine');
  if (where === 'engine') {
    const products = engineProducts(matrix);
    try {
      const rough = minimize(objectiveOf(problem, products), x, {
        gradientNormMax: ENGINE_MARGIN * gradientNormMax,
        iterationsMax,
      });
      x = rough.x;
      iterations = rough.iterations;
      evaluations += rough.evaluations;
    } finally {
      products.dispose();
    }
  }
  const optimum = minimize(exact, x, { gradientNormMax, iterationsMax: iterationsMax - iterations });
  return {
    classifier: fromCentred(optimum.x, mean_D, classes),
    objective: optimum.value,
    gradientNorm: optimum.gradientNorm,
    gradientNormRelative: scale === 0 ? 0 : optimum.gradientNorm / scale,
    iterations: iterations + optimum.iterations,
    evaluations: evaluations + optimum.evaluations,
    converged: optimum.converged,
  };
}

/** Scores [N,K] of features [N,D]; the softmax of a row are its probabilities. */
export function logits(classifier: LinearClassifier, features_ND: Float32Array): Float64Array {
  const { dimensions, classes, weights_DK, bias_K } = classifier;
  const matrix = { values_ND: features_ND, dimensions, classes };
  const products = isSmall(matrix) ? hostProducts(matrix) : engineProducts(matrix);
  try {
    const logits_NK = new Float64Array(products.timesWeights(weights_DK));
    addToRows(logits_NK, bias_K);
    return logits_NK;
  } finally {
    products.dispose();
  }
}

/** The class of highest score of each row; a tie goes to the class that comes first. */
export function predictedClasses(logits_NK: Float64Array | Float32Array, classes: number): Int32Array {
  const best_N = new Int32Array(logits_NK.length / classes);
  for (let n = 0; n < best_N.length; n++) {
    let best = 0;
    for (let k = 1; k < classes; k++) if (logits_NK[n * classes + k]! > logits_NK[n * classes + best]!) best = k;
    best_N[n] = best;
  }
  return best_N;
}

export interface ClassificationScores {
  /** Share of samples whose class has the highest score. */
  readonly accuracy: number;
  /** Mean −log probability of the right class. */
  readonly crossEntropy: number;
}

/** How a classifier does on labelled features. */
export function scores(classifier: LinearClassifier, samples: LabelledFeatures): ClassificationScores {
  const { classes } = classifier;
  const logits_NK = logits(classifier, samples.features_ND);
  const predicted_N = predictedClasses(logits_NK, classes);
  const { labels_N } = samples;
  const right = predicted_N.reduce((sum, best, n) => sum + (best === labels_N[n] ? 1 : 0), 0);
  return {
    accuracy: right / labels_N.length,
    crossEntropy: softmaxResiduals(logits_NK, labels_N, classes, new Float64Array(logits_NK.length)),
  };
}

interface ObjectiveShape {
  readonly labels_N: Int32Array;
  readonly dimensions: number;
  readonly classes: number;
  readonly l2: number;
}

/** Mean cross-entropy + λ/2·‖W‖² of x = (W, b), and its gradient (XᵀR/N + λW, Σ R/N) with R = softmax − one-hot. */
function objectiveOf({ labels_N, dimensions, classes, l2 }: ObjectiveShape, products: MatrixProducts): SmoothFunction {
  const count = dimensions * classes;
  const logits_NK = new Float64Array(labels_N.length * classes);
  const residuals_NK = new Float64Array(labels_N.length * classes);
  return {
    size: count + classes,
    relativeNoise: products.relativeNoise,
    evaluate(x, gradient) {
      const weights_DK = x.subarray(0, count);
      logits_NK.set(products.timesWeights(weights_DK));
      addToRows(logits_NK, x.subarray(count));
      const crossEntropy = softmaxResiduals(logits_NK, labels_N, classes, residuals_NK);
      products.transposedTimes(residuals_NK, gradient.subarray(0, count));
      let squares = 0;
      for (let i = 0; i < count; i++) {
        gradient[i] = gradient[i]! / labels_N.length + l2 * weights_DK[i]!;
        squares += weights_DK[i]! * weights_DK[i]!;
      }
      gradient.fill(0, count);
      addRowsTo(gradient.subarray(count), residuals_NK);
      for (let k = 0; k < classes; k++) gradient[count + k]! /= labels_N.length;
      return crossEntropy + (l2 / 2) * squares;
    },
  };
}

function addToRows(values_NK: Float64Array, row_K: Float64Array): void {
  const classes = row_K.length;
  for (let at = 0; at < values_NK.length; at += classes) {
    for (let k = 0; k < classes; k++) values_NK[at + k]! += row_K[k]!;
  }
}

function addRowsTo(sum_K: Float64Array, values_NK: Float64Array): void {
  const classes = sum_K.length;
  for (let at = 0; at < values_NK.length; at += classes) {
    for (let k = 0; k < classes; k++) sum_K[k]! += values_NK[at + k]!;
  }
}

/** Mean cross-entropy; writes softmax − one-hot. */
export function softmaxResiduals(
  logits_NK: Float64Array,
  labels_N: Int32Array,
  classes: number,
  residuals_NK: Float64Array,
): number {
  let total = 0;
  for (let n = 0; n < labels_N.length; n++) {
    const at = n * classes;
    let top = Number.NEGATIVE_INFINITY;
    for (let k = 0; k < classes; k++) top = Math.max(top, logits_NK[at + k]!);
    let sum = 0;
    for (let k = 0; k < classes; k++) {
      const weight = Math.exp(logits_NK[at + k]! - top);
      residuals_NK[at + k] = weight;
      sum += weight;
    }
    for (let k = 0; k < classes; k++) residuals_NK[at + k]! /= sum;
    const own = at + labels_N[n]!;
    residuals_NK[own]! -= 1;
    total += Math.log(sum) + top - logits_NK[own]!;
  }
  return total / labels_N.length;
}

function centred({ features_ND, dimensions }: LabelledFeatures): { centred_ND: Float32Array; mean_D: Float64Array } {
  const rows = features_ND.length / dimensions;
  const mean_D = new Float64Array(dimensions);
  const centred_ND = new Float32Array(features_ND.length);
  for (let at = 0; at < features_ND.length; at += dimensions) {
    for (let d = 0; d < dimensions; d++) mean_D[d]! += features_ND[at + d]! / rows;
  }
  for (let at = 0; at < features_ND.length; at += dimensions) {
    for (let d = 0; d < dimensions; d++) centred_ND[at + d] = features_ND[at + d]! - mean_D[d]!;
  }
  return { centred_ND, mean_D };
}

/** W·x + b = W·(x − m) + (b + W·m). */
function toCentred({ weights_DK, bias_K, classes }: LinearClassifier, mean_D: Float64Array): Float64Array {
  const x = new Float64Array(weights_DK.length + classes);
  x.set(weights_DK);
  x.set(bias_K, weights_DK.length);
  for (let i = 0; i < weights_DK.length; i++) {
    x[weights_DK.length + (i % classes)]! += mean_D[Math.floor(i / classes)]! * weights_DK[i]!;
  }
  return x;
}

function fromCentred(x: Float64Array, mean_D: Float64Array, classes: number): LinearClassifier {
  const count = mean_D.length * classes;
  const weights_DK = x.slice(0, count);
  const bias_K = x.slice(count);
  for (let i = 0; i < count; i++) bias_K[i % classes]! -= mean_D[Math.floor(i / classes)]! * weights_DK[i]!;
  return { dimensions: mean_D.length, classes, weights_DK, bias_K };
}

/** Norms of blocks: a spread of the whole vector could be too many arguments. */
function blockNorms(values: Float64Array): number[] {
  const norms: number[] = [];
  for (let begin = 0; begin < values.length; begin += 4096) {
    let squares = 0;
    for (const value of values.subarray(begin, begin + 4096)) squares += value * value;
    norms.push(Math.sqrt(squares));
  }
  return norms;
}

function checkProblem({ features_ND, labels_N, dimensions }: LabelledFeatures, options: LogisticOptions): void {
  const refuse = (reason: string, fields: Readonly<Record<string, unknown>>): never => {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot fit a linear classifier: ${reason}`, { fields });
  };
  const { classes, l2, start } = options;
  const samples = labels_N.length;
  if (samples === 0) refuse('there are no samples; give it a labelled dataset', { samples });
  if (features_ND.length !== samples * dimensions) {
    refuse(`${features_ND.length} values are not ${samples} samples of ${dimensions}`, { samples, dimensions });
  }
  if (!(l2 > 0)) refuse(`l2 is ${l2}; without a positive one separable data have no optimum`, { l2 });
  const wrong = labels_N.find((label) => label < 0 || label >= classes);
  if (wrong !== undefined) refuse(`label ${wrong} is not one of the ${classes} classes`, { label: wrong, classes });
  if (labels_N.every((label) => label === labels_N[0])) {
    refuse(`all ${samples} samples are of class ${labels_N[0]}; at least two classes are needed`, { samples });
  }
  const broken = features_ND.findIndex((value) => !Number.isFinite(value));
  if (broken >= 0) {
    const sample = Math.floor(broken / dimensions);
    refuse(`a feature of sample ${sample} is ${features_ND[broken]}`, { sample });
  }
  if (start !== undefined && (start.dimensions !== dimensions || start.classes !== classes)) {
    refuse(
      `the start has ${start.dimensions} dimensions and ${start.classes} classes, not ${dimensions} and ${classes}`,
      { dimensions, classes },
    );
  }
}
