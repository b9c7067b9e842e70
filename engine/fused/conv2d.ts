import { torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import type { Tensor, Tensor4D } from '../tf.ts';

/** See ops/conv2d.ts. */
export function fusedConv2d(x_BHWC: Tensor4D, weight_OIHW: Tensor4D, stride: number, padding: number): Tensor4D {
  const backend = torchBackend();
  const { addon } = backend;
  const half = backend.isHalf(x_BHWC);
  const [batch, height, width] = x_BHWC.shape;
  const [outputs, , windowHeight, windowWidth] = weight_OIHW.shape;
  const places = (size: number, window: number) => Math.floor((size + 2 * padding - window) / stride) + 1;
  const shape = [batch, places(height, windowHeight), places(width, windowWidth), outputs];
  const form = { half, pointwise: windowHeight * windowWidth === 1 };
  return runFusedOp({
    name: 'CoveyConv2d',
    inputs: { x: x_BHWC, weight: weight_OIHW },
    forward: () => {
      const input = backend.handleOf(x_BHWC);
      const y = backend.withConvWeight(backend.recordOf(weight_OIHW), form, (weight) =>
        addon.conv2d(input, weight, stride, padding),
      );
      return { outputs: [backend.tensor(y, shape)], saved: [backend.save(x_BHWC), backend.save(weight_OIHW)] };
    },
    backward: ([dy], wanted, [input, weight]) => {
      const gradient = backend.handleOf(dy!);
      const [dx, dweight] = backend.withConvWeight(weight!.record!, form, (handle) =>
        addon.conv2dGradient(gradient, input!.handle, handle, stride, padding, wanted.has('x'), wanted.has('weight')),
      );
      const result: Record<string, Tensor> = {};
      if (dx !== null) result['x'] = backend.tensor(dx, x_BHWC.shape);
      if (dweight !== null) result['weight'] = backend.tensor(dweight, weight_OIHW.shape);
      return result;
    },
  })[0] as Tensor4D;
}
