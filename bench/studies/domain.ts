import { mean } from '../../common/mean.ts';
import { ICON_CATEGORIES } from '../../worker/data/pack/icon-source.ts';
import type { BenchTable } from '../support/rows.ts';
import { METHODS, type MethodOutcome, runMethod } from './domain/run-method.ts';
import { openStyles } from './domain/styles.ts';
import { pretrainedBackbone } from './pretraining/pretrained-backbone.ts';
import { type Study, type StudyOptions, withIcons } from './pretraining/with-icons.ts';

export interface DomainRow {
  readonly method: string;
  /** On held-out pictures of the target: mean over the seeds, their standard deviation, and each of them. */
  readonly accuracy: number;
  readonly accuracyDeviation: number;
  readonly accuracies: readonly number[];
  /** Mean of the last weights in place of those that were chosen. */
  readonly lastAccuracy: number;
  readonly validationAccuracy: number;
  /** A linear classifier fitted afresh tells the domains apart on held-out pictures: share of 1, mean over the seeds. */
  readonly domainAccuracyBefore: number;
  readonly domainAccuracyAfter: number;
  readonly proxyADistanceBefore: number;
  readonly proxyADistanceAfter: number;
  readonly seconds: number;
}

/** Flat colours without outlines, and drawings in black outlines of few colours. */
const SOURCE = 'twemoji';
const TARGET = 'openmoji';
/** Place and size alone: changes of colour would do by hand a part of what adaptation is to do. */
const AUGMENT = { scale: [0.7, 1] };
const FULL = { pretrainSteps: 400, steps: 260, seeds: 3, batch: 64, evaluations: 8 };
const QUICK = { pretrainSteps: 4, steps: 6, seeds: 1, batch: 16, evaluations: 1 };

/**
 * Labels on one artist's icons, pictures without labels of another's: what adaptation is worth, and what it does to the features. The backbone is
 * pretrained as CLIP on the names of four artists' icons; the fifth is the target, whom only adaptation sees.
 */
export async function run(options: StudyOptions): Promise<DomainRow[]> {
  const { pretrainSteps, seeds, ...settings } = options.quick ? QUICK : FULL;
  const compare = async ({ engine, icons, seconds, seed: firstSeed }: Study) => {
    // By steps where nothing is said, so that the backbone does not depend on the machine's speed.
    const length = seconds === undefined ? { steps: pretrainSteps } : { seconds };
    const backbone = await pretrainedBackbone({ name: 'ViT' }, { seed: firstSeed, ...length }, { engine, icons });
    const { imageSize: imageSide } = backbone.vision;
    const styles = await openStyles(icons, { style: SOURCE, imageSide, augment: AUGMENT });
    const rows: DomainRow[] = [];
    for (const method of METHODS) {
      if (!isChosen(method.name, options.only)) continue;
      const outcomes: MethodOutcome[] = [];
      for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
        const own = { ...settings, seed, augment: AUGMENT };
        const outcome = await runMethod(method, backbone, styles, own, engine);
        outcomes.push(outcome);
        process.stderr.write(`${method.name}, seed ${seed}: ${JSON.stringify(outcome)}\n`);
      }
      rows.push(rowOf(method.name, outcomes));
    }
    return rows;
  };
  return withIcons(options, compare, TARGET);
}

function rowOf(method: string, outcomes: readonly MethodOutcome[]): DomainRow {
  const meanOf = (pick: (outcome: MethodOutcome) => number) => mean(outcomes.map(pick));
  const accuracies = outcomes.map(({ accuracy }) => accuracy);
  return {
    method,
    accuracy: mean(accuracies),
    accuracyDeviation: deviation(accuracies),
    accuracies,
    lastAccuracy: meanOf(({ lastAccuracy }) => lastAccuracy),
    validationAccuracy: meanOf(({ validationAccuracy }) => validationAccuracy),
    domainAccuracyBefore: meanOf(({ before }) => before.accuracy),
    domainAccuracyAfter: meanOf(({ after }) => after.accuracy),
    proxyADistanceBefore: meanOf(({ before }) => before.proxyADistance),
    proxyADistanceAfter: meanOf(({ after }) => after.proxyADistance),
    seconds: meanOf(({ seconds }) => seconds),
  };
}

/** Of a sample; 0 for one value. */
function deviation(values: readonly number[]): number {
  if (values.length < 2) return 0;
  const middle = mean(values);
  return Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1));
}

function isChosen(name: string, only: string | undefined): boolean {
  if (only === undefined) return true;
  return only.split(',').some((part) => name.toLowerCase().includes(part.trim().toLowerCase()));
}

/** A table for people. */
export function table(rows: readonly DomainRow[]): BenchTable {
  const percent = (share: number) => `${(100 * share).toFixed(1)} %`;
  const seeds = rows[0]?.accuracies.length ?? 0;
  return {
    head: [
      'learnt with',
      'target accuracy',
      'least – most',
      'last weights',
      'validation',
      'domains told apart',
      'A-distance',
      'seconds',
    ],
    rows: rows.map((row) => [
      row.method,
      `${percent(row.accuracy)} ± ${(100 * row.accuracyDeviation).toFixed(1)}`,
      `${percent(Math.min(...row.accuracies))} – ${percent(Math.max(...row.accuracies))}`,
      percent(row.lastAccuracy),
      percent(row.validationAccuracy),
      `${percent(row.domainAccuracyBefore)} → ${percent(row.domainAccuracyAfter)}`,
      `${row.proxyADistanceBefore.toFixed(2)} → ${row.proxyADistanceAfter.toFixed(2)}`,
      row.seconds.toFixed(0),
    ]),
    notes: [
      `category (of ${ICON_CATEGORIES.length}) of ${TARGET}'s drawings, labels on ${SOURCE}'s alone; mean ± standard deviation over ${seeds} seeds`,
      'domains told apart: by a linear classifier fitted afresh to each network’s features, on held-out pictures; 50 % is chance. A-distance: 2·(1 − 2·its error)',
      'target labels: learns from the target’s own labels, which the others do not have',
    ],
  };
}
