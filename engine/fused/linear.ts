import { torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import type { Tensor, Tensor1D, Tensor2D } from '../tf.ts';

/** See ops/linear.ts. The input's gradient is computed only where somebody needs it. */
export function fusedLinear(x: Tensor, weight_OI: Tensor2D, bias_O: Tensor1D | null): Tensor {
  const backend = torchBackend();
  const { addon } = backend;
  const half = backend.isHalf(x);
  const [outputs] = weight_OI.shape;
  return runFusedOp({
    name: 'CoveyLinear',
    inputs: bias_O === null ? { x, weight: weight_OI } : { x, weight: weight_OI, bias: bias_O },
    forward: () => {
      const input = backend.handleOf(x);
      const product = backend.withParameter(weight_OI, half, (weight) =>
        bias_O === null
          ? addon.linear(input, weight, null)
          : backend.withParameter(bias_O, half, (bias) => addon.linear(input, weight, bias)),
      );
      // The weight is saved only to keep its storage alive; backward reaches it through the tensor.
      return {
        outputs: [backend.tensor(product, [...x.shape.slice(0, -1), outputs])],
        saved: [backend.save(x), backend.save(weight_OI)],
      };
    },
    backward: ([dy], wanted, [input, weight]) => {
      const gradient = backend.handleOf(dy!);
      const result: Record<string, Tensor> = {};
      if (wanted.has('x')) {
        const dx = backend.withSaved(weight!, half, (handle) => addon.linearInputGradient(gradient, handle));
        result['x'] = backend.tensor(dx, x.shape);
      }
      if (wanted.has('weight')) {
        result['weight'] = backend.tensor(addon.linearWeightGradient(gradient, input!.handle), weight_OI.shape);
      }
      if (wanted.has('bias')) result['bias'] = backend.tensor(addon.sumRows(gradient), [outputs]);
      return result;
    },
  })[0]!;
}
