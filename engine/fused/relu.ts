import { torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import type { Tensor } from '../tf.ts';

/** See ops/relu.ts. Backward needs the result only, which the next op keeps as well. */
export function fusedRelu(x: Tensor): Tensor {
  const backend = torchBackend();
  const { addon } = backend;
  return runFusedOp({
    name: 'CoveyRelu',
    inputs: { x },
    forward: () => {
      const y = backend.tensor(addon.relu(backend.handleOf(x)), x.shape);
      return { outputs: [y], saved: [backend.save(y)] };
    },
    backward: ([dy], _wanted, [y]) => ({
      x: backend.tensor(addon.reluGradient(backend.handleOf(dy!), y!.handle), x.shape),
    }),
  })[0]!;
}
