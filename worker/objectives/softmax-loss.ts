import { type Engine, type Tensor, type Tensor1D, type Tensor2D, tf } from '../../engine/index.ts';
import { hostSum } from './tiles.ts';

/** Of the cross entropy Σ_i Σ_k −q_ik log p_ik, p = softmax(logits): R rows, K classes. */
export interface SoftmaxLoss {
  /** p − q: the gradient of the sum. The caller disposes it. */
  readonly dLogits_RK: Tensor2D;
  readonly lossSum: number;
  /** Class of each row's largest logit. */
  readonly best_R: ArrayLike<number>;
}

/** @param target_RK q, each row summing to 1; disposed here */
export function softmaxLoss(engine: Engine, logits: Tensor, target_RK: Tensor2D): SoftmaxLoss {
  let lossSum = 0;
  const dLogits_RK = tf.tidy(() => {
    const logP_RK = tf.logSoftmax(logits as Tensor2D);
    lossSum = -hostSum(engine, tf.sum(tf.mul(target_RK, logP_RK), 1) as Tensor1D);
    return tf.sub(tf.exp(logP_RK), target_RK) as Tensor2D;
  });
  target_RK.dispose();
  const best_R = tf.tidy(() => tf.argMax(logits as Tensor2D, 1).dataSync());
  return { dLogits_RK, lossSum, best_R };
}

/** (1 − ε)·[k = y] + ε/K (Szegedy et al. 2016, §7). The caller disposes it. */
export function smoothedTargets(labels: Int32Array, classes: number, epsilon: number): Tensor2D {
  return tf.tidy(() => {
    const oneHot_RK = tf.oneHot(tf.tensor1d(labels, 'int32'), classes);
    return tf.add(tf.mul(oneHot_RK, 1 - epsilon), epsilon / classes) as Tensor2D;
  });
}

/** Rows whose largest logit is their label's. */
export function countCorrect({ best_R }: SoftmaxLoss, labels: Int32Array): number {
  return labels.filter((label, row) => label === best_R[row]).length;
}
