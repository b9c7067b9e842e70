import { type SavedHandle, torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import type { Handle } from '../native/load.ts';
import type { Tensor, Tensor1D } from '../tf.ts';

interface Parameters {
  readonly weight: Tensor1D;
  readonly bias: Tensor1D;
}

/** See ops/layer-norm.ts. */
export function fusedLayerNorm(x: Tensor, weight: Tensor1D, bias: Tensor1D, eps: number): Tensor {
  const backend = torchBackend();
  return runFusedOp<SavedHandle>({
    name: 'CoveyLayerNorm',
    inputs: { x, weight, bias },
    forward: () => {
      const [, y, statistics] = backend.addon.layerNorm(
        backend.handleOf(x),
        null,
        backend.handleOf(weight),
        backend.handleOf(bias),
        eps,
      );
      return {
        outputs: [backend.tensor(y, x.shape)],
        saved: [backend.save(x), backend.saveHandle(statistics), backend.save(weight)],
      };
    },
    backward: ([dy], _wanted, saved) => gradients(backend.handleOf(dy!), null, saved, x, { weight, bias }),
  })[0]!;
}

/** See ops/layer-norm.ts. */
export function fusedAddLayerNorm(
  x: Tensor,
  delta: Tensor,
  weight: Tensor1D,
  bias: Tensor1D,
  eps: number,
): { sum: Tensor; normalised: Tensor } {
  const backend = torchBackend();
  const [sum, normalised] = runFusedOp<SavedHandle>({
    name: 'CoveyAddLayerNorm',
    inputs: { x, delta, weight, bias },
    forward: () => {
      const [total, y, statistics] = backend.addon.layerNorm(
        backend.handleOf(x),
        backend.handleOf(delta),
        backend.handleOf(weight),
        backend.handleOf(bias),
        eps,
      );
      const sumTensor = backend.tensor(total!, x.shape);
      return {
        outputs: [sumTensor, backend.tensor(y, x.shape)],
        saved: [backend.save(sumTensor), backend.saveHandle(statistics), backend.save(weight)],
      };
    },
    backward: ([dsum, dy], _wanted, saved) => {
      if (!dy) return { x: dsum!, delta: dsum! };
      const result = gradients(backend.handleOf(dy), dsum ? backend.handleOf(dsum) : null, saved, x, { weight, bias });
      return { ...result, delta: result['x']! };
    },
  });
  return { sum: sum!, normalised: normalised! };
}

function gradients(
  dy: Handle,
  dsum: Handle | null,
  [input, statistics, gain]: readonly SavedHandle[],
  x: Tensor,
  { weight, bias }: Parameters,
): Record<string, Tensor> {
  const backend = torchBackend();
  const [dx, dweight, dbias] = backend.addon.layerNormGradient(
    dy,
    dsum,
    input!.handle,
    statistics!.handle,
    gain!.handle,
  );
  return {
    x: backend.tensor(dx, x.shape),
    weight: backend.tensor(dweight, weight.shape),
    bias: backend.tensor(dbias, bias.shape),
  };
}
