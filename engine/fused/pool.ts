import { torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import type { Tensor2D, Tensor4D } from '../tf.ts';

/** See ops/pool.ts. Backward needs one byte per result, not the input. */
export function fusedMaxPool2d(x_BHWC: Tensor4D, size: number, stride: number, padding: number): Tensor4D {
  const backend = torchBackend();
  const { addon } = backend;
  const [batch, height, width, channels] = x_BHWC.shape;
  const places = (side: number) => Math.floor((side + 2 * padding - size) / stride) + 1;
  const shape = [batch, places(height), places(width), channels];
  const storage = backend.scalarTypeOf(x_BHWC);
  return runFusedOp({
    name: 'CoveyMaxPool2d',
    inputs: { x: x_BHWC },
    forward: () => {
      const [y, winner] = addon.maxPool2d(backend.handleOf(x_BHWC), size, stride, padding);
      return { outputs: [backend.tensor(y, shape)], saved: [backend.saveHandle(winner)] };
    },
    backward: ([dy], _wanted, [winner]) => {
      const dx = addon.maxPool2dGradient(
        backend.handleOf(dy!),
        winner!.handle,
        x_BHWC.shape,
        size,
        stride,
        padding,
        storage,
      );
      return { x: backend.tensor(dx, x_BHWC.shape) };
    },
  })[0] as Tensor4D;
}

/** See ops/pool.ts. */
export function fusedGlobalAveragePool(x_BHWC: Tensor4D): Tensor2D {
  const backend = torchBackend();
  const { addon } = backend;
  const [batch, , , channels] = x_BHWC.shape;
  const storage = backend.scalarTypeOf(x_BHWC);
  return runFusedOp({
    name: 'CoveyGlobalAveragePool',
    inputs: { x: x_BHWC },
    forward: () => ({
      outputs: [backend.tensor(addon.globalAveragePool(backend.handleOf(x_BHWC)), [batch, channels])],
      saved: [],
    }),
    backward: ([dy]) => ({
      x: backend.tensor(addon.globalAveragePoolGradient(backend.handleOf(dy!), x_BHWC.shape, storage), x_BHWC.shape),
    }),
  })[0] as Tensor2D;
}
