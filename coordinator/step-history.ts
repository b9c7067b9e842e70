import type { Evaluation } from '../proto/gen/covey/v1/Evaluation.ts';
import type { StepRecord } from '../proto/gen/covey/v1/StepRecord.ts';

/** Step records kept in memory, per run. */
export const STEP_HISTORY_MAX = 10_000;
/** Steps the throughput is averaged over. */
const THROUGHPUT_STEPS = 20;

/** Evaluations kept in memory, per run. */
const EVALUATION_HISTORY_MAX = 1_000;

/** The newest step records and evaluations of a run; a step computed again replaces its record. */
export class StepHistory {
  readonly #evaluations = new Map<number, Evaluation>();
  readonly #records = new Map<number, StepRecord>();
  #newest: StepRecord | null = null;

  get newest(): StepRecord | null {
    return this.#newest;
  }

  add(record: StepRecord): void {
    this.#records.delete(record.step);
    this.#records.set(record.step, record);
    if (this.#newest === null || record.step >= this.#newest.step || record.generation > this.#newest.generation)
      this.#newest = record;
    for (const oldest of this.#records.keys()) {
      if (this.#records.size <= STEP_HISTORY_MAX) break;
      this.#records.delete(oldest);
    }
  }

  /** What is remembered of steps after `step`, in step order; an evaluation follows the record of its step. */
  after(step: number): ({ readonly step: StepRecord } | { readonly evaluation: Evaluation })[] {
    const records = [...this.#records.values()].map((record) => ({ at: record.step, what: { step: record } }));
    const evaluations = [...this.#evaluations.values()].map((one) => ({ at: one.step, what: { evaluation: one } }));
    // The sort is stable: what comes first stays first.
    return [...records, ...evaluations]
      .filter(({ at }) => at > step)
      .sort((a, b) => a.at - b.at)
      .map(({ what }) => what);
  }

  addEvaluation(evaluation: Evaluation): void {
    this.#evaluations.delete(evaluation.step);
    this.#evaluations.set(evaluation.step, evaluation);
    for (const oldest of this.#evaluations.keys()) {
      if (this.#evaluations.size <= EVALUATION_HISTORY_MAX) break;
      this.#evaluations.delete(oldest);
    }
  }

  /** The one that was reported last. */
  get newestEvaluation(): Evaluation | null {
    return [...this.#evaluations.values()].at(-1) ?? null;
  }

  /** Over the last steps of the newest generation, waits between steps included; 0 with fewer than two. */
  samplesPerSecond(): number {
    const newest = this.#newest;
    if (newest === null) return 0;
    let samples = 0;
    let first = newest;
    for (let step = newest.step; step > newest.step - THROUGHPUT_STEPS; step--) {
      const record = this.#records.get(step - 1);
      if (record === undefined || record.generation !== newest.generation) break;
      samples += this.#records.get(step)?.samples ?? 0;
      first = record;
    }
    const seconds = newest.timeSeconds - first.timeSeconds;
    return seconds > 0 ? samples / seconds : 0;
  }
}
