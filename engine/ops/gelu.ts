import { onTorch } from '../backend/active.ts';
import { fusedGelu } from '../fused/gelu.ts';
import { add, erf, mul, sigmoid, type Tensor } from '../tf.ts';

/** x·Φ(x) with the exact Gaussian distribution function (Hendrycks & Gimpel 2016), not the tanh approximation. */
export function gelu(x: Tensor): Tensor {
  if (onTorch()) return fusedGelu(x, 'gelu');
  return mul(mul(x, 0.5), add(erf(mul(x, Math.SQRT1_2)), 1));
}

/** x·σ(1.702·x): what OpenAI's CLIP weights were trained with. */
export function quickGelu(x: Tensor): Tensor {
  if (onTorch()) return fusedGelu(x, 'quickGelu');
  return mul(x, sigmoid(mul(x, 1.702)));
}
