import { mixKey } from '../../../common/random.ts';
import { DECADES, sweepL2 } from '../../../models/linear/l2-sweep.ts';
import { fitLogistic, type LabelledFeatures, scores } from '../../../models/linear/logistic-regression.ts';
import type { FeatureRows } from '../../features/extract-features.ts';

export interface DomainDistance {
  /** Of linear classifiers fitted afresh, on pictures they were not fitted to: 0.5 where no line tells the domains apart. */
  readonly accuracy: number;
  /** 2·(1 − 2ε), ε their error (Ben-David et al. 2007, §4): 2 apart, 0 alike; chance may put it a little below. */
  readonly proxyADistance: number;
  /** Pictures judged, both domains together. */
  readonly samples: number;
}

/** With fewer of a domain there is nothing to fit, to choose by and to judge. */
const DISTANCE_SAMPLES_MIN = 8;
const SAMPLES_MAX = 1000;
const CHOICE_SHARE = 0.25;

/**
 * How well a linear classifier tells two sets of features apart: as many of each domain, in two halves; fitted to one to its optimum, the penalty
 * chosen within it, judged on the other, and the other way round. Pictures that the features were not trained on make it honest.
 * @returns undefined for fewer than eight pictures of a domain
 */
export function domainDistance(source: FeatureRows, target: FeatureRows, seed: number): DomainDistance | undefined {
  const { dimensions } = source;
  const counts = [source, target].map(({ features_ND }) => features_ND.length / dimensions);
  const each = Math.min(...counts, SAMPLES_MAX);
  if (each < DISTANCE_SAMPLES_MIN) return undefined;
  const rows = [source, target].flatMap((domain, label) =>
    shuffled(counts[label]!, seed, label)
      .slice(0, each)
      .map((row, place) => ({ domain, label, row, place })),
  );
  const scaled = scale([source, target], dimensions);
  const take = (chosen: (place: number) => boolean): LabelledFeatures => {
    const some = rows.filter(({ place }) => chosen(place));
    const features_ND = new Float32Array(some.length * dimensions);
    some.forEach(({ domain, row }, n) => {
      const values = domain.features_ND.subarray(row * dimensions, (row + 1) * dimensions);
      features_ND.set(
        values.map((value) => value / scaled),
        n * dimensions,
      );
    });
    return { features_ND, labels_N: Int32Array.from(some, ({ label }) => label), dimensions };
  };
  const half = Math.floor(each / 2);
  const choice = Math.max(1, Math.floor(half * CHOICE_SHARE));
  let right = 0;
  let judged = 0;
  for (const isFitted of [(place: number) => place < half, (place: number) => place >= half]) {
    const begin = isFitted(0) ? 0 : half;
    const fit = take((place) => isFitted(place) && place - begin >= choice);
    const chooser = take((place) => isFitted(place) && place - begin < choice);
    const { best } = sweepL2(fit, chooser, { classes: 2, l2s: DECADES });
    const { classifier } = fitLogistic(take(isFitted), { classes: 2, l2: best.l2, start: best.fit.classifier });
    const test = take((place) => !isFitted(place));
    right += scores(classifier, test).accuracy * test.labels_N.length;
    judged += test.labels_N.length;
  }
  const accuracy = right / judged;
  return { accuracy, proxyADistance: 2 * (2 * accuracy - 1), samples: judged };
}

function shuffled(count: number, seed: number, label: number): number[] {
  const keyed = Array.from({ length: count }, (_, row) => ({ row, key: mixKey('domain distance', seed, label, row) }));
  keyed.sort((a, b) => a.key[0] - b.key[0] || a.key[1] - b.key[1]);
  return keyed.map(({ row }) => row);
}

/** Root mean square of all centred features: a penalty then means the same before and after a training. */
function scale(domains: readonly FeatureRows[], dimensions: number): number {
  const rows = domains.reduce((sum, { features_ND }) => sum + features_ND.length / dimensions, 0);
  const mean_D = new Float64Array(dimensions);
  for (const { features_ND } of domains)
    features_ND.forEach((value, i) => {
      mean_D[i % dimensions]! += value / rows;
    });
  let squares = 0;
  for (const { features_ND } of domains)
    features_ND.forEach((value, i) => {
      squares += (value - mean_D[i % dimensions]!) ** 2;
    });
  return Math.sqrt(squares / (rows * dimensions)) || 1;
}
