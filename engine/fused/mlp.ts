import { torchBackend } from '../backend/torch-backend.ts';
import type { Handle } from '../native/load.ts';
import type { Activation, MlpLayer } from '../ops/mlp.ts';
import type { Tensor } from '../tf.ts';
import { fusedLayer } from './linear.ts';

/**
 * See ops/mlp.ts. The activation is applied to the first product while that is in the cache, so what it took is never held; its slope is
 * applied to the gradient of the second layer's input in the same way. What passes between the two nodes of the tape is therefore the
 * gradient before the activation, which is nobody's business but theirs. Two nodes, so that backward frees the wide tensors one by one.
 */
export function fusedMlp(x: Tensor, hidden: MlpLayer, output: MlpLayer, activation: Activation): Tensor {
  const backend = torchBackend();
  const { addon } = backend;
  let slope: Handle | null = null;
  const activated = fusedLayer(x, hidden.weight, hidden.bias, {
    name: 'CoveyLinearGelu',
    product: (input, weight, bias, recording) => {
      const [value, slopeThere] = addon.linearGelu(input, weight, bias, activation === 'quickGelu', recording);
      slope = slopeThere;
      return value;
    },
  });
  const y = fusedLayer(activated, output.weight, output.bias, {
    name: 'CoveyGeluLinear',
    inputGradient: (dy, weight, slopeHandle) => addon.geluLinearInputGradient(dy, weight, slopeHandle!),
    extra: backend.saveOptional(slope),
  });
  activated.dispose();
  return y;
}
