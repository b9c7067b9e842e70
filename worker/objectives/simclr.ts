import type { GlobalBatch } from './objective.ts';
import { OBJECTIVE_INPUTS } from './objective-inputs.ts';
import { ViewObjective } from './view-objective.ts';

/**
 * SimCLR's NT-Xent (Chen et al. 2020, equation 1): among the 2N views of the batch, a view's only positive is the other view of the
 * same picture. With z = g(h), unit length, and h = f(x) kept for transfer:
 *
 *   ℓ(i, j) = −log( exp(z_i·z_j/τ) / Σ_{k ≠ i} exp(z_i·z_k/τ) ),  L = 1/2N Σ over both directions of every pair
 *
 * It is SupCon where every picture is a class of its own (Khosla et al. 2020, §3.2.3).
 */
export class SimclrObjective extends ViewObjective {
  readonly inputs = OBJECTIVE_INPUTS.simclr;

  protected classes({ samples }: GlobalBatch): Int32Array {
    return Int32Array.from({ length: samples }, (_, sample) => sample);
  }
}
