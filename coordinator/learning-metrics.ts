import { BoundedNames } from '../common/metrics/bounded.ts';
import type { Evaluation } from '../proto/gen/covey/v1/Evaluation.ts';
import type { StepRecord } from '../proto/gen/covey/v1/StepRecord.ts';
import type { CoordinatorMetrics } from './metrics.ts';

/** Series of one kind that a run may have. */
const NAMES_MAX = 64;

/** What a run learns, by names that its workers chose: bounded before they become labels. */
export class LearningMetrics {
  readonly #run: string;
  readonly #metrics: CoordinatorMetrics;
  readonly #objective = new BoundedNames(NAMES_MAX);
  readonly #health = new BoundedNames(NAMES_MAX);
  readonly #eval = new BoundedNames(4 * NAMES_MAX);

  constructor(run: string, metrics: CoordinatorMetrics) {
    this.#run = run;
    this.#metrics = metrics;
  }

  step({ metrics, health }: StepRecord): void {
    const run = this.#run;
    for (const [name, value] of Object.entries(metrics)) {
      this.#metrics.objectiveMetric.set({ run, name: this.#objective.label(name) }, value);
    }
    for (const [name, value] of Object.entries(health)) {
      const [embedding, measure] = parted(this.#health.label(name), '.');
      this.#metrics.embeddingHealth.set({ run, embedding, measure }, value);
    }
  }

  collapsed(is: boolean): void {
    this.#metrics.embeddingCollapsed.set({ run: this.#run }, is ? 1 : 0);
  }

  evaluation({ step, metrics, seconds }: Evaluation): void {
    const run = this.#run;
    for (const [full, value] of Object.entries(metrics)) {
      const [dataset, name] = parted(this.#eval.label(full), '/');
      this.#metrics.evalMetric.set({ run, dataset, name }, value);
    }
    this.#metrics.evalStep.set({ run }, step);
    this.#metrics.evalSeconds.set({ run }, seconds);
  }
}

/** `a/b` in its parts; a name without a separator (`other`) stands for both. */
function parted(name: string, separator: string): [string, string] {
  const at = name.indexOf(separator);
  return at < 0 ? [name, name] : [name.slice(0, at), name.slice(at + 1)];
}
