import { type Tensor, type Tensor2D, tf, unrecorded } from '../../engine/index.ts';

/** Widths of the kernels over the median. */
export const MMD_WIDTHS: readonly number[] = [0.25, 0.5, 1, 2, 4];
const WIDTH_MIN = 1e-12;

/**
 * The unbiased estimate of the squared maximum mean discrepancy (Gretton et al. 2012, eq. 3) under the mean of five Gaussian kernels
 * k(a, b) = exp(−‖a − b‖² / (w·m)), as deep adaptation networks use them (Long et al. 2015, §3.1). m is the median of the squared distances of
 * all pairs (Gretton et al. 2012, §8), of these features unless given, and is not differentiated. Equal distributions have 0 in the mean, so it may
 * be negative. At least two rows each.
 */
export function mmdLoss(source_BF: Tensor2D, target_BF: Tensor2D, median?: number): Tensor {
  return tf.tidy(() => {
    const [sources, targets] = [source_BF.shape[0], target_BF.shape[0]];
    const distances_NN = squaredDistances(tf.concat2d([source_BF, target_BF], 0));
    const middle = Math.max(median ?? medianOfPairs(distances_NN), WIDTH_MIN);
    const kernels = MMD_WIDTHS.map((width) => tf.exp(tf.mul(distances_NN, -1 / (width * middle))));
    const mean_NN = tf.div(tf.addN(kernels), kernels.length);
    return tf.sum(tf.mul(mean_NN, pairWeights(sources, targets)));
  });
}

function squaredDistances(x_NF: Tensor2D): Tensor2D {
  const squares_N1 = tf.sum(tf.square(x_NF), 1, true);
  const products_NN = tf.matMul(x_NF, x_NF, false, true);
  const distances_NN = tf.sub(tf.add(squares_N1, tf.transpose(squares_N1)), tf.mul(products_NN, 2));
  // Rounding makes the least ones negative.
  return tf.relu(distances_NN) as Tensor2D;
}

/** What each pair counts: 1/(S(S−1)) within the source, 1/(T(T−1)) within the target, −1/(ST) across, nothing with itself. */
function pairWeights(sources: number, targets: number): Tensor2D {
  const rows = sources + targets;
  const weights_NN = new Float32Array(rows * rows);
  for (let a = 0; a < rows; a++) {
    for (let b = 0; b < rows; b++) {
      if (a === b) continue;
      const [left, right] = [a < sources, b < sources];
      const count = left ? sources : targets;
      weights_NN[a * rows + b] = left === right ? 1 / (count * (count - 1)) : -1 / (sources * targets);
    }
  }
  return tf.tensor2d(weights_NN, [rows, rows]);
}

/** The lower one of an even number. */
function medianOfPairs(distances_NN: Tensor2D): number {
  const rows = distances_NN.shape[0];
  const all = unrecorded(() => distances_NN.dataSync<'float32'>());
  const pairs = new Float32Array((rows * (rows - 1)) / 2);
  let at = 0;
  for (let a = 0; a < rows; a++) for (let b = 0; b < a; b++) pairs[at++] = all[a * rows + b]!;
  pairs.sort();
  return pairs[Math.floor((pairs.length - 1) / 2)]!;
}
