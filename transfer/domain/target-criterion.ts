import type { PictureSample } from '../data/picture-source.ts';
import { type EvaluateModules, networkLogits } from '../tune/evaluate.ts';
import type { Selection } from '../tune/tune.ts';

export interface TargetInformation {
  /** Mean entropy of the predictions, nats. */
  readonly entropy: number;
  /** H(mean prediction) − mean H(prediction), nats: between 0 and log K. */
  readonly information: number;
}

/**
 * What predictions [N,K] on unlabelled pictures tell of their classes: the mutual information of picture and predicted class (Shi & Sha 2012). It is
 * high where each prediction is sure and all classes occur; one class for everything has none.
 */
export function targetInformation(logits_NK: Float64Array, classes: number): TargetInformation {
  const rows = logits_NK.length / classes;
  const mean_K = new Float64Array(classes);
  let entropy = 0;
  for (let n = 0; n < rows; n++) {
    const row = logits_NK.subarray(n * classes, (n + 1) * classes);
    const largest = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
    const total = row.reduce((sum, logit) => sum + Math.exp(logit - largest), 0);
    for (let k = 0; k < classes; k++) {
      const p = Math.exp(row[k]! - largest) / total;
      mean_K[k]! += p / rows;
      if (p > 0) entropy -= (p * Math.log(p)) / rows;
    }
  }
  const marginal = mean_K.reduce((sum, p) => sum - (p > 0 ? p * Math.log(p) : 0), 0);
  return { entropy, information: marginal - entropy };
}

/**
 * Chooses weights without a label of the target: information on target pictures less the cross-entropy on the source's validation split, both in nats. The
 * second keeps in check what the first cannot see, a sure prediction that is wrong; information maximisation as a validator is the one that
 * Musgrave et al. 2022 ("Three new validators") found among the best. It favours predictions spread over all classes: where the target has few of
 * them it misleads.
 */
export function informationSelection(
  samples: readonly PictureSample[],
  classes: number,
  modules: EvaluateModules,
): Selection {
  return async ({ crossEntropy }) => {
    const { entropy, information } = targetInformation(await networkLogits(samples, classes, modules), classes);
    const score = information - crossEntropy;
    return { score, measures: { targetEntropy: entropy, targetInformation: information } };
  };
}
