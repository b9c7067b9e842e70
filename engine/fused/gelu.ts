import { torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import type { Tensor } from '../tf.ts';

/** See ops/gelu.ts. */
export function fusedGelu(x: Tensor, kind: 'gelu' | 'quickGelu'): Tensor {
  const backend = torchBackend();
  const { addon } = backend;
  return runFusedOp({
    name: 'CoveyGelu',
    inputs: { x },
    // The slope takes the input's place in memory: as large, and backward has nothing left to compute but a product.
    forward: (recording) => {
      const [y, slope] = addon.gelu(backend.handleOf(x), kind === 'quickGelu', recording);
      return { outputs: [backend.tensor(y, x.shape)], saved: slope === null ? [] : [backend.saveHandle(slope)] };
    },
    backward: ([dy], _wanted, [slope]) => ({
      x: backend.tensor(addon.geluGradient(backend.handleOf(dy!), slope!.handle), x.shape),
    }),
  })[0]!;
}
