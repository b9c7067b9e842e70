import { CoveyError, throwIfAborted } from '../../common/errors.ts';
import {
  type ClassificationScores,
  fitLogistic,
  type LabelledFeatures,
  type LogisticFit,
  type LogisticOptions,
  scores,
} from './logistic-regression.ts';

export interface L2SweepOptions extends Omit<LogisticOptions, 'l2' | 'start'> {
  /** Default: `DECADES`, then half a decade to either side of the best. */
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

/** From 1 to 1e-6: strong enough for one picture a class, weak enough for thousands. */
export const DECADES: readonly number[] = Array.from({ length: 7 }, (_, i) => 10 ** -i);

/**
 * One fit per penalty, from the strongest to the weakest, each started from the one before. The best has the highest validation accuracy; of
 * equals the lowest cross-entropy; of equals the strongest penalty.
 */
export function sweepL2(train: LabelledFeatures, validation: LabelledFeatures, options: L2SweepOptions): L2Sweep {
  const { l2s = DECADES, onTrial, signal, ...rest } = options;
  if (l2s.length === 0 || validation.labels_N.length === 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot choose a penalty: ${l2s.length} penalties and ${validation.labels_N.length} validation samples; give at least one of each`,
    );
  }
  const trials: L2Trial[] = [];
  const total = l2s.length + (options.l2s === undefined ? 2 : 0);
  for (const l2 of [...l2s].sort((a, b) => b - a)) attempt(l2, trials.at(-1));
  const coarse = bestOf(trials);
  if (options.l2s === undefined) for (const factor of [10 ** 0.5, 10 ** -0.5]) attempt(coarse.l2 * factor, coarse);
  trials.sort((a, b) => b.l2 - a.l2);
  return { trials, best: bestOf(trials) };

  function attempt(l2: number, neighbour: L2Trial | undefined): void {
    throwIfAborted(signal);
    const start = neighbour?.fit.classifier;
    const fit = fitLogistic(train, { ...rest, l2, ...(start === undefined ? {} : { start }) });
    const trial = {
      l2,
      fit,
      train: scores(fit.classifier, train),
      validation: scores(fit.classifier, validation),
    };
    trials.push(trial);
    onTrial?.(trial, trials.length, total);
  }
}

function bestOf(trials: readonly L2Trial[]): L2Trial {
  return trials.reduce((best, trial) => (isBetter(trial, best) ? trial : best));
}

function isBetter({ validation: a }: L2Trial, { validation: b }: L2Trial): boolean {
  return a.accuracy > b.accuracy || (a.accuracy === b.accuracy && a.crossEntropy < b.crossEntropy);
}
