import { CoveyError } from '../../common/errors.ts';
import { type SavedHandle, torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import type { BatchNormOptions, BatchNormState } from '../ops/batch-norm.ts';
import type { Tensor } from '../tf.ts';

/**
 * See ops/batch-norm.ts. Backward keeps x, and the result only where a residual was added before ReLU; else it learns from x what ReLU
 * let through.
 */
export function fusedBatchNorm(x: Tensor, state: BatchNormState, options: BatchNormOptions): Tensor {
  const { training, momentum = 0.1, eps = 1e-5, activation, residual } = options;
  const { weight, bias, runningMean, runningVariance } = state;
  const backend = torchBackend();
  const { addon } = backend;
  const relu = activation === 'relu';
  const needsResult = relu && residual !== undefined;
  if (training && x.size <= x.shape.at(-1)!) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      'Cannot normalise a batch: training needs more than one value per channel',
      {
        fields: { shape: x.shape },
      },
    );
  }
  return runFusedOp<SavedHandle>({
    name: 'CoveyBatchNorm',
    inputs: residual === undefined ? { x, weight, bias } : { x, weight, bias, residual },
    forward: () => {
      const [y, statistics] = addon.batchNorm(
        backend.handleOf(x),
        residual === undefined ? null : backend.handleOf(residual),
        backend.handleOf(weight),
        backend.handleOf(bias),
        backend.handleOf(runningMean),
        backend.handleOf(runningVariance),
        training,
        momentum,
        eps,
        relu,
      );
      const output = backend.tensor(y, x.shape);
      const saved = [backend.save(x), backend.saveHandle(statistics), backend.save(weight), backend.save(bias)];
      return { outputs: [output], saved: needsResult ? [...saved, backend.save(output)] : saved };
    },
    backward: ([dy], wanted, [input, statistics, gain, shift, result]) => {
      const [dx, dweight, dbias, dresidual] = addon.batchNormGradient(
        backend.handleOf(dy!),
        input!.handle,
        result?.handle ?? null,
        statistics!.handle,
        gain!.handle,
        shift!.handle,
        training,
        relu,
      );
      const gradients: Record<string, Tensor> = {
        x: backend.tensor(dx, x.shape),
        weight: backend.tensor(dweight, weight.shape),
        bias: backend.tensor(dbias, bias.shape),
      };
      if (dresidual !== null) gradients['residual'] = backend.tensor(dresidual, x.shape);
      else if (wanted.has('residual')) gradients['residual'] = dy!;
      return gradients;
    },
  })[0]!;
}
