import { onTorch } from '../backend/active.ts';
import { fusedMlp } from '../fused/mlp.ts';
import type { Tensor, Tensor1D, Tensor2D } from '../tf.ts';
import { gelu, quickGelu } from './gelu.ts';
import { linear } from './linear.ts';

/** One of the two layers: weight [O, I] and bias [O], both fp32. */
export interface MlpLayer {
  readonly weight: Tensor2D;
  readonly bias: Tensor1D;
}

export type Activation = 'gelu' | 'quickGelu';

/**
 * The perceptron of a transformer's block, linear(activation(linear(x, hidden)), output) (Vaswani et al. 2017, §3.3, with GELU).
 *
 * @param x [..., D] in fp32 or bf16, which is the precision of both products; they accumulate in fp32.
 * @returns [..., O] in x's precision.
 */
export function mlp(x: Tensor, hidden: MlpLayer, output: MlpLayer, activation: Activation): Tensor {
  if (onTorch()) return fusedMlp(x, hidden, output, activation);
  const apply = activation === 'quickGelu' ? quickGelu : gelu;
  return linear(apply(linear(x, hidden.weight, hidden.bias)), output.weight, output.bias);
}
