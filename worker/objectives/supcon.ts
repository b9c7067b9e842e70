import type { GlobalBatch } from './objective.ts';
import { OBJECTIVE_INPUTS } from './objective-inputs.ts';
import { ViewObjective } from './view-objective.ts';

/**
 * Supervised contrastive loss, L_out (Khosla et al. 2020, equation 2): every view of every picture of the same class is a positive, and
 * the mean over positives is outside the logarithm. The labels are gathered with the projections. Mean over the 2N views, as in the
 * authors' code with its base temperature equal to τ.
 */
export class SupconObjective extends ViewObjective {
  readonly inputs = OBJECTIVE_INPUTS.supcon;

  protected classes({ labels }: GlobalBatch): Int32Array {
    return labels;
  }
}
