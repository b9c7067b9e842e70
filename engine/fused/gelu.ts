import { torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import type { Tensor } from '../tf.ts';

/** See ops/gelu.ts. */
export function fusedGelu(x: Tensor, kind: 'gelu' | 'quickGelu'): Tensor {
  const backend = torchBackend();
  const { addon } = backend;
  const quick = kind === 'quickGelu';
  return runFusedOp({
    name: 'CoveyGelu',
    inputs: { x },
    forward: () => ({
      outputs: [backend.tensor(addon.gelu(backend.handleOf(x), quick), x.shape)],
      saved: [backend.save(x)],
    }),
    backward: ([dy], _wanted, [input]) => ({
      x: backend.tensor(addon.geluGradient(backend.handleOf(dy!), input!.handle, quick), x.shape),
    }),
  })[0]!;
}
