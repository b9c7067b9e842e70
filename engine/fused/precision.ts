import { torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import { SCALAR_TYPES } from '../native/load.ts';
import type { Tensor } from '../tf.ts';

function cast(x: Tensor, target: number): Tensor {
  const backend = torchBackend();
  const { addon } = backend;
  const source = backend.scalarTypeOf(x);
  if (source === target) return x;
  return runFusedOp({
    name: 'CoveyCast',
    inputs: { x },
    forward: () => ({ outputs: [backend.tensor(addon.castTo(backend.handleOf(x), target), x.shape)], saved: [] }),
    backward: ([dy]) => ({ x: backend.tensor(addon.castTo(backend.handleOf(dy!), source), x.shape) }),
  })[0]!;
}

/** fp32 → bf16 storage; the same tensor where it is bf16 already. The gradient comes back fp32. */
export function fusedToBfloat16(x: Tensor): Tensor {
  return cast(x, SCALAR_TYPES.bfloat16);
}

/** bf16 → fp32 storage; the same tensor where it is no narrower already. The gradient comes back bf16. */
export function fusedToFloat32(x: Tensor): Tensor {
  return torchBackend().isHalf(x) ? cast(x, SCALAR_TYPES.float32) : x;
}
