import { type SavedHandle, torchBackend } from '../backend/torch-backend.ts';
import { runFusedOp } from '../fused-op.ts';
import type { Handle } from '../native/load.ts';
import type { Tensor, Tensor1D, Tensor2D } from '../tf.ts';

/** See ops/linear.ts. */
export function fusedLinear(x: Tensor, weight_OI: Tensor2D, bias_O: Tensor1D | null): Tensor {
  return fusedLayer(x, weight_OI, bias_O, { name: 'CoveyLinear' });
}

/** What is special to a layer that is fused with its neighbours; by default it has the kernels of one that stands alone. */
export interface LayerKernels {
  readonly name: string;
  readonly product?: (x: Handle, weight: Handle, bias: Handle | null, recording: boolean) => Handle;
  readonly inputGradient?: (dy: Handle, weight: Handle, extra: Handle | undefined) => Handle;
  /** Held for `inputGradient`, which takes its handle. */
  readonly extra?: SavedHandle;
}

/** A layer as one node of the tape. The input's gradient is computed only where somebody needs it. */
export function fusedLayer(x: Tensor, weight_OI: Tensor2D, bias_O: Tensor1D | null, kernels: LayerKernels): Tensor {
  const backend = torchBackend();
  const { addon } = backend;
  const {
    name,
    product = (input, weight, bias) => addon.linear(input, weight, bias),
    inputGradient = (dy, weight) => addon.linearInputGradient(dy, weight),
    extra,
  } = kernels;
  const half = backend.isHalf(x);
  const [outputs] = weight_OI.shape;
  return runFusedOp({
    name,
    inputs: bias_O === null ? { x, weight: weight_OI } : { x, weight: weight_OI, bias: bias_O },
    forward: (recording) => {
      const input = backend.handleOf(x);
      const result = backend.withParameter(weight_OI, half, (weight) =>
        bias_O === null
          ? product(input, weight, null, recording)
          : backend.withParameter(bias_O, half, (bias) => product(input, weight, bias, recording)),
      );
      // The weight is saved only to keep its storage alive; backward reaches it through the tensor.
      const saved = [backend.save(x), backend.save(weight_OI)];
      return {
        outputs: [backend.tensor(result, [...x.shape.slice(0, -1), outputs])],
        saved: extra === undefined ? saved : [...saved, extra],
      };
    },
    backward: ([dy], wanted, [input, weight, held]) => {
      const gradient = backend.handleOf(dy!);
      const result: Record<string, Tensor> = {};
      if (wanted.has('x')) {
        const dx = backend.withSaved(weight!, half, (handle) => inputGradient(gradient, handle, held?.handle));
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
