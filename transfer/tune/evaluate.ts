import type { Engine } from '../../engine/index.ts';
import { predictedClasses, softmaxResiduals } from '../../models/linear/logistic-regression.ts';
import type { LabelledSample } from '../data/labelled-set.ts';
import type { PictureSample, PictureSource } from '../data/picture-source.ts';
import { pictureOutputs } from '../features/extract-features.ts';
import type { TransferNetwork } from '../network.ts';

export interface Evaluation {
  readonly samples: number;
  readonly accuracy: number;
  /** Mean over the classes that occur, each counting one. */
  readonly classAccuracy: number;
  readonly crossEntropy: number;
  /** [K,K]: rows are the right classes, columns the predicted ones. */
  readonly confusion: readonly (readonly number[])[];
}

export interface EvaluateModules {
  readonly engine: Engine;
  readonly network: TransferNetwork;
  readonly pictures: PictureSource;
  readonly signal?: AbortSignal | undefined;
}

/** How the network's head classifies some pictures. */
export async function evaluateNetwork(
  samples: readonly LabelledSample[],
  classes: number,
  modules: EvaluateModules,
): Promise<Evaluation> {
  const labels_N = Int32Array.from(samples, ({ label }) => label);
  return evaluationOf(await networkLogits(samples, classes, modules), labels_N, classes);
}

/** Class scores [N,K] of pictures through the evaluation transform, in order. */
export async function networkLogits(
  samples: readonly PictureSample[],
  classes: number,
  modules: EvaluateModules,
): Promise<Float64Array> {
  return Float64Array.from(await pictureOutputs(samples, { output: 'logits', columns: classes }, modules));
}

export function evaluationOf(logits_NK: Float64Array, labels_N: Int32Array, classes: number): Evaluation {
  const predicted_N = predictedClasses(logits_NK, classes);
  const confusion = Array.from({ length: classes }, () => new Array<number>(classes).fill(0));
  labels_N.forEach((label, n) => {
    confusion[label]![predicted_N[n]!]!++;
  });
  const recalls = confusion.flatMap((row, k) => {
    const count = row.reduce((a, b) => a + b, 0);
    return count === 0 ? [] : [row[k]! / count];
  });
  const right = confusion.reduce((sum, row, k) => sum + row[k]!, 0);
  return {
    samples: labels_N.length,
    accuracy: right / labels_N.length,
    classAccuracy: recalls.reduce((a, b) => a + b, 0) / recalls.length,
    crossEntropy: softmaxResiduals(logits_NK, labels_N, classes, new Float64Array(logits_NK.length)),
    confusion,
  };
}
