import { type Tensor, type Tensor2D, tf } from '../../engine/index.ts';

/**
 * Deep CORAL (Sun & Saenko 2016, eq. 1–3): ‖C_S − C_T‖²_F / (4·F²), the distance of the covariances of two sets of features. At least two rows each.
 */
export function coralLoss(source_BF: Tensor2D, target_BF: Tensor2D): Tensor {
  return tf.tidy(() => {
    const difference_FF = tf.sub(covariance(source_BF), covariance(target_BF));
    return tf.div(tf.sum(tf.square(difference_FF)), 4 * source_BF.shape[1] ** 2);
  });
}

function covariance(x_BF: Tensor2D): Tensor2D {
  const centred_BF = tf.sub(x_BF, tf.mean(x_BF, 0, true)) as Tensor2D;
  return tf.div(tf.matMul(centred_BF, centred_BF, true, false), x_BF.shape[0] - 1) as Tensor2D;
}
