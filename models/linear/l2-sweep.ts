import { CoveyError } from '../../common/errors.ts';
import {
  type ClassificationScores,
  fitLogistic,
  type LabelledFeatures,
  type LogisticFit,
  type LogisticOptions,
  scores,
} from './logistic-regression.ts';

export interface L2SweepOptions extends Omit<LogisticOptions, 'l2' | 'start'> {
  /** Default `DEFAULT_L2S`. */
  readonly l2s?: readonly number[];
  /** Called after each fit. */
  readonly onTrial?: (trial: L2Trial, done: number, total: number) => void;
  readonly signal?: AbortSignal;
}

export interface L2Trial {
  readonly l2: number;
  readonly fit: LogisticFit;
  readonly train: ClassificationScores;
  readonly validation: ClassificationScores;
}

export interface L2Sweep {
  /** Strongest penalty first. */
  readonly trials: readonly L2Trial[];
  readonly best: L2Trial;
}

/** Half decades from 1 to 1e-6: strong enough for one picture a class, weak enough for thousands. */
export const DEFAULT_L2S: readonly number[] = Array.from({ length: 13 }, (_, i) => 10 ** (-i / 2));

/**
 * One fit per penalty, from the strongest to the weakest, each started from the one before. The best has the highest validation accuracy; of
 * equals the lowest cross-entropy; of equals the strongest penalty.
 */
export function sweepL2(train: LabelledFeatures, validation: LabelledFeatures, options: L2SweepOptions): L2Sweep {
  const { l2s = DEFAULT_L2S, onTrial, signal, ...rest } = options;
  if (l2s.length === 0 || validation.labels_N.length === 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot choose a penalty: ${l2s.length} penalties and ${validation.labels_N.length} validation samples; give at least one of each`,
    );
  }
  const trials: L2Trial[] = [];
  for (const l2 of [...l2s].sort((a, b) => b - a)) {
    signal?.throwIfAborted();
    const start = trials.at(-1)?.fit.classifier;
    const fit = fitLogistic(train, { ...rest, l2, ...(start === undefined ? {} : { start }) });
    const trial = {
      l2,
      fit,
      train: scores(fit.classifier, train),
      validation: scores(fit.classifier, validation),
    };
    trials.push(trial);
    onTrial?.(trial, trials.length, l2s.length);
  }
  return { trials, best: trials.reduce((best, trial) => (isBetter(trial, best) ? trial : best)) };
}

function isBetter({ validation: a }: L2Trial, { validation: b }: L2Trial): boolean {
  return a.accuracy > b.accuracy || (a.accuracy === b.accuracy && a.crossEntropy < b.crossEntropy);
}
