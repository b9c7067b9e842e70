import { runFusedOp } from '../fused-op.ts';
import { clone, mul, type Tensor } from '../tf.ts';

/**
 * R_λ(x) = x with dR_λ/dx = −λ·I (Ganin et al. 2016, §4.2): what follows descends its loss, what comes before climbs it. No gradient of any
 * function that is computed, so it is no use where one is differentiated twice. Forward has x's bits.
 * @param coefficient λ; 0 lets nothing through
 */
export function gradientReversal<T extends Tensor>(x: T, coefficient: number): T {
  return runFusedOp({
    name: 'CoveyGradientReversal',
    inputs: { x },
    forward: () => ({ outputs: [clone(x)], saved: [] }),
    backward: ([dy]) => ({ x: mul(dy!, -coefficient) }),
  })[0] as T;
}
