import { type SavedHandle, torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import type { Tensor } from '../tf.ts';

/** See ops/l2-normalize.ts. */
export function fusedL2Normalize(x: Tensor, normMin: number): Tensor {
  const backend = torchBackend();
  const { addon } = backend;
  const storage = backend.scalarTypeOf(x);
  return runFusedOp<SavedHandle>({
    name: 'CoveyL2Normalize',
    inputs: { x },
    forward: () => {
      const [y, norms] = addon.l2Normalize(backend.handleOf(x), normMin);
      const normalised = backend.tensor(y, x.shape);
      return { outputs: [normalised], saved: [backend.save(normalised), backend.saveHandle(norms)] };
    },
    backward: ([dy], _wanted, [y, norms]) => {
      const dx = addon.l2NormalizeGradient(backend.handleOf(dy!), y!.handle, norms!.handle, storage);
      return { x: backend.tensor(dx, x.shape) };
    },
  })[0]!;
}
