import { classVotes, nearestNeighbours } from '../models/linear/knn.ts';
import { type L2Sweep, type L2SweepOptions, sweepL2 } from '../models/linear/l2-sweep.ts';
import {
  fitLogistic,
  type LabelledFeatures,
  type LogisticFit,
  logits,
  predictedClasses,
} from '../models/linear/logistic-regression.ts';
import { type Evaluation, evaluationOf } from './tune/evaluate.ts';

export interface ProbeSets {
  readonly train: LabelledFeatures;
  /** Chooses the penalty. */
  readonly validation: LabelledFeatures;
  /** Judged at the end; where there is none, the validation split is. */
  readonly test?: LabelledFeatures | undefined;
}

export interface ProbeResult {
  readonly sweep: L2Sweep;
  /** At the chosen penalty, of train and validation together (Radford et al. 2021, §A.3). */
  readonly final: LogisticFit;
  readonly evaluation: Evaluation;
  /** Weighted kNN (Wu et al. 2018; k = 20, T = 0.07) over the same pictures. */
  readonly knnAccuracy: number;
  readonly judgedOn: 'test' | 'validation';
}

export const KNN_COUNT = 20;
export const KNN_TEMPERATURE = 0.07;

/** A linear probe: penalty by validation, solved to its optimum, refitted on all labels, judged on pictures it has not seen. */
export function linearProbe({ train, validation, test }: ProbeSets, options: L2SweepOptions): ProbeResult {
  const { classes } = options;
  const sweep = sweepL2(train, validation, options);
  const { l2, fit } = sweep.best;
  const all = joined(train, validation);
  const final = fitLogistic(all, { classes, l2, start: fit.classifier });
  // Without a test set nothing may have been fitted to what is judged.
  const [judged, classifier, bank] =
    test === undefined ? [validation, fit.classifier, train] : [test, final.classifier, all];
  return {
    sweep,
    final,
    evaluation: evaluationOf(logits(classifier, judged.features_ND), judged.labels_N, classes),
    knnAccuracy: knnAccuracy(bank, judged, classes),
    judgedOn: test === undefined ? 'validation' : 'test',
  };
}

/** Share of queries whose class has the most votes of their neighbours; a tie goes to the class that comes first. */
export function knnAccuracy(bank: LabelledFeatures, queries: LabelledFeatures, classes: number): number {
  const neighbours = nearestNeighbours(bank, queries.features_ND, { count: KNN_COUNT });
  const votes = classVotes(neighbours, bank.labels_N, { classes, temperature: KNN_TEMPERATURE });
  const predicted = predictedClasses(votes, classes);
  return queries.labels_N.filter((label, n) => predicted[n] === label).length / queries.labels_N.length;
}

function joined(a: LabelledFeatures, b: LabelledFeatures): LabelledFeatures {
  const features_ND = new Float32Array(a.features_ND.length + b.features_ND.length);
  features_ND.set(a.features_ND);
  features_ND.set(b.features_ND, a.features_ND.length);
  const labels_N = new Int32Array(a.labels_N.length + b.labels_N.length);
  labels_N.set(a.labels_N);
  labels_N.set(b.labels_N, a.labels_N.length);
  return { features_ND, labels_N, dimensions: a.dimensions };
}
