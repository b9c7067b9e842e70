import { tf } from '../../engine/index.ts';

/** The two products of a linear model with its fixed features X. N rows, D dimensions, K classes; row-major. */
export interface MatrixProducts {
  /** Relative rounding error of one product. */
  readonly relativeNoise: number;
  /** X·W. The result is overwritten by the next call. */
  timesWeights(weights_DK: Float64Array): Float64Array | Float32Array;
  /** out = Xᵀ·R. */
  transposedTimes(residuals_NK: Float64Array, out_DK: Float64Array): void;
  dispose(): void;
}

export interface FeatureMatrix {
  readonly values_ND: Float32Array;
  readonly dimensions: number;
  readonly classes: number;
}

/** Multiplications of one product above which the engine is faster, transfers included. */
const HOST_PRODUCT_MAX = 2e6;

/** Is one product of this problem small enough for plain loops? */
export function isSmall({ values_ND, classes }: FeatureMatrix): boolean {
  return values_ND.length * classes <= HOST_PRODUCT_MAX;
}

/** In fp64, in plain loops: about 1 GFLOP/s. */
export function hostProducts({ values_ND, dimensions, classes }: FeatureMatrix): MatrixProducts {
  const rows = values_ND.length / dimensions;
  const logits_NK = new Float64Array(rows * classes);
  return {
    relativeNoise: 1e-14,
    timesWeights(weights_DK) {
      logits_NK.fill(0);
      for (let n = 0; n < rows; n++) {
        const at = n * classes;
        for (let d = 0; d < dimensions; d++) {
          const x = values_ND[n * dimensions + d]!;
          const from = d * classes;
          for (let k = 0; k < classes; k++) logits_NK[at + k]! += x * weights_DK[from + k]!;
        }
      }
      return logits_NK;
    },
    transposedTimes(residuals_NK, out_DK) {
      out_DK.fill(0);
      for (let n = 0; n < rows; n++) {
        const from = n * classes;
        for (let d = 0; d < dimensions; d++) {
          const x = values_ND[n * dimensions + d]!;
          const at = d * classes;
          for (let k = 0; k < classes; k++) out_DK[at + k]! += x * residuals_NK[from + k]!;
        }
      }
    },
    dispose() {},
  };
}

/** In fp32 on the active engine: tens of times faster once the problem is large. */
export function engineProducts({ values_ND, dimensions, classes }: FeatureMatrix): MatrixProducts {
  const rows = values_ND.length / dimensions;
  const x_ND = tf.tensor2d(values_ND, [rows, dimensions]);
  return {
    relativeNoise: 1e-6,
    timesWeights: (weights_DK) =>
      tf.tidy(() => {
        const w_DK = tf.tensor2d(new Float32Array(weights_DK), [dimensions, classes]);
        return tf.matMul(x_ND, w_DK).dataSync<'float32'>();
      }) as unknown as Float32Array,
    transposedTimes(residuals_NK, out_DK) {
      tf.tidy(() => {
        const r_NK = tf.tensor2d(new Float32Array(residuals_NK), [rows, classes]);
        out_DK.set(tf.matMul(x_ND, r_NK, true).dataSync<'float32'>());
      });
    },
    dispose: () => x_ND.dispose(),
  };
}
