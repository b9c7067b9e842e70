import { onTorch } from '../backend/active.ts';
import { fusedRelu } from '../fused/relu.ts';
import { relu as plainRelu, type Tensor } from '../tf.ts';

/** max(x, 0) in x's precision. Where it follows batch normalisation, `batchNorm({activation: 'relu'})` spares the memory. */
export function relu<T extends Tensor>(x: T): T {
  return onTorch() ? (fusedRelu(x) as T) : plainRelu(x);
}
