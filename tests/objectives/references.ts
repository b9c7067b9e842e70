import { type Tensor, type Tensor2D, tf } from '../../engine/index.ts';

/** Every loss over the whole batch, N×N matrices and all, by stock tfjs ops and their stock gradients: each as its paper has it. */

const pick = (x: Tensor, mask: Tensor) => tf.sum(tf.mul(x, mask), 1);

/** Radford et al. 2021, figure 3. */
export function clipLoss(image: Tensor, text: Tensor, logScale: Tensor): Tensor {
  const logits = tf.mul(tf.matMul(image as Tensor2D, text as Tensor2D, false, true), tf.exp(logScale)) as Tensor2D;
  const target = tf.eye(image.shape[0]!);
  const crossEntropy = (rows: Tensor2D) => tf.neg(tf.mean(pick(tf.logSoftmax(rows), target)));
  return tf.mul(tf.add(crossEntropy(logits), crossEntropy(tf.transpose(logits))), 0.5);
}

/** Zhai et al. 2023, algorithm 1. */
export function siglipLoss(image: Tensor, text: Tensor, logScale: Tensor, bias: Tensor): Tensor {
  const n = image.shape[0]!;
  const dot = tf.matMul(image as Tensor2D, text as Tensor2D, false, true);
  const logits = tf.add(tf.mul(dot, tf.exp(logScale)), bias);
  const labels = tf.sub(tf.mul(tf.eye(n), 2), tf.ones([n, n]));
  // log σ(x) = −softplus(−x); tfjs's own logSigmoid holds its input by a closure that a recording does not see.
  return tf.div(tf.sum(tf.softplus(tf.neg(tf.mul(labels, logits)))), n);
}

/** Rows and columns without the diagonal: the similarity of a view to itself is taken far below all others. */
function othersLogSoftmax(z: Tensor2D, temperature: number): Tensor {
  const logits = tf.div(tf.matMul(z, z, false, true), temperature);
  return tf.logSoftmax(tf.sub(logits, tf.mul(tf.eye(z.shape[0]), 1e9)));
}

/** Chen et al. 2020, equation 1 and algorithm 1. @param z [2N, D], the first views before the second ones */
export function simclrLoss(z: Tensor2D, temperature: number): Tensor {
  const n = z.shape[0] / 2;
  const eye = tf.eye(n);
  const zero = tf.zerosLike(eye);
  const partner = tf.concat([tf.concat([zero, eye], 1), tf.concat([eye, zero], 1)], 0);
  return tf.neg(tf.mean(pick(othersLogSoftmax(z, temperature), partner)));
}

/** SimCLR's numerator alone: −log exp(z_i·z_j/τ), mean over the views. */
export function attractionLoss(z: Tensor2D, temperature: number): Tensor {
  const n = z.shape[0] / 2;
  const [first, second] = tf.split(z, [n, n]) as [Tensor2D, Tensor2D];
  return tf.neg(tf.mean(tf.div(tf.sum(tf.mul(first, second), 1), temperature)));
}

/** Khosla et al. 2020, equation 2 (L_out), mean over the views. @param labels [N], of both views */
export function supconLoss(z: Tensor2D, labels: Int32Array, temperature: number): Tensor {
  const both = [...labels, ...labels];
  const mask = both.map((own, i) => both.map((other, j) => (own === other && i !== j ? 1 : 0)));
  const positives = tf.tensor2d(mask);
  const logProbability = tf.div(pick(othersLogSoftmax(z, temperature), positives), tf.sum(positives, 1));
  return tf.neg(tf.mean(logProbability));
}

/** Szegedy et al. 2016, §7. */
export function supervisedLoss(logits: Tensor2D, labels: Int32Array, smoothing: number): Tensor {
  const classes = logits.shape[1];
  const target = [...labels].map((label) =>
    Array.from({ length: classes }, (_, k) => (1 - smoothing) * (k === label ? 1 : 0) + smoothing / classes),
  );
  return tf.neg(tf.mean(pick(tf.logSoftmax(logits), tf.tensor2d(target))));
}
