import { onTorch } from '../backend/active.ts';
import { fusedBatchNorm } from '../fused/batch-norm.ts';
import { add, moments, mul, relu, rsqrt, sub, type Tensor, type Tensor1D, tidy, type Variable } from '../tf.ts';

/** What belongs to one batch normalisation, each fp32 [C]. */
export interface BatchNormState {
  readonly weight: Tensor1D;
  readonly bias: Tensor1D;
  /** Not trainable; updated in place by every forward in training. */
  readonly runningMean: Variable;
  readonly runningVariance: Variable;
}

export interface BatchNormOptions {
  /** True: normalise by the batch's statistics and update the running ones. False: normalise by the running ones. */
  readonly training: boolean;
  /** The new statistics' share in the running ones. Default 0.1. */
  readonly momentum?: number;
  /** Default 1e-5. */
  readonly eps?: number;
  /** Applied to the result, after the residual. */
  readonly activation?: 'relu';
  /** Added to the normalised values; of x's shape and precision. */
  readonly residual?: Tensor;
}

/**
 * Batch normalisation (Ioffe & Szegedy 2015) over all axes but the last, with an optional residual sum and ReLU in the same passes:
 * act((x − mean)/√(variance + eps)·weight + bias + residual). Statistics are fp32 also where x is bf16. PyTorch's rule: the batch's
 * variance is divided by N to normalise and by N − 1 in the running one. A forward that is run again updates the running statistics again.
 *
 * @param x [..., C]
 * @returns x's shape and precision
 */
export function batchNorm<T extends Tensor>(x: T, state: BatchNormState, options: BatchNormOptions): T {
  if (onTorch()) return fusedBatchNorm(x, state, options) as T;
  const { training, momentum = 0.1, eps = 1e-5, activation, residual } = options;
  const axes = x.shape.slice(0, -1).map((_, axis) => axis);
  const { mean, variance } = training
    ? moments(x, axes)
    : { mean: state.runningMean as Tensor, variance: state.runningVariance as Tensor };
  if (training) {
    const count = x.size / x.shape.at(-1)!;
    updateRunning(state.runningMean, mean, momentum);
    updateRunning(state.runningVariance, mul(variance, count / Math.max(1, count - 1)), momentum);
  }
  const scaled = add(mul(mul(sub(x, mean), rsqrt(add(variance, eps))), state.weight), state.bias);
  const sum = residual === undefined ? scaled : add(scaled, residual);
  return (activation === 'relu' ? relu(sum) : sum) as T;
}

function updateRunning(running: Variable, fresh: Tensor, momentum: number): void {
  const updated = tidy(() => add(mul(running, 1 - momentum), mul(fresh, momentum)));
  running.assign(updated);
  updated.dispose();
}
