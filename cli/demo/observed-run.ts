import type { StepRecord } from '../../proto/gen/covey/v1/StepRecord.ts';
import type { WatchRunResponse } from '../../proto/gen/covey/v1/WatchRunResponse.ts';

/** One update as the coordinator recorded it. */
export interface ObservedStep {
  /** 1 for the first update. */
  readonly step: number;
  readonly generation: number;
  readonly loss: number;
  /** exp(logit scale). */
  readonly logitScale: number;
  readonly gradNorm: number;
  readonly learningRate: number;
  readonly stepSeconds: number;
  readonly phaseSeconds: Readonly<Record<string, number>>;
  /** Seconds since the Unix epoch. */
  readonly timeSeconds: number;
  /** The objective's own results, and the health of embeddings where the step measured it. */
  readonly measures: Readonly<Record<string, number>>;
}

/** What held-out data said of the weights after a step. */
export interface ObservedEvaluation {
  readonly step: number;
  readonly metrics: Readonly<Record<string, number>>;
}

/** Something the coordinator said while the run went on. */
export interface ObservedEvent {
  readonly timeSeconds: number;
  readonly kind: string;
  readonly message: string;
}

/** A worker that was killed on purpose. */
export interface ObservedKill {
  readonly atSeconds: number;
  readonly pid: number;
  /** Last committed step, and its generation, when the signal was sent. */
  readonly step: number;
  readonly generation: number;
}

/**
 * What was seen of a run, step by step. A step that was committed again by a later generation replaces the earlier record: what
 * stays is the history that was trained.
 */
export class ObservedRun {
  readonly #steps = new Map<number, ObservedStep>();
  readonly #evaluations = new Map<number, ObservedEvaluation>();
  readonly #events: ObservedEvent[] = [];
  /** Generation → members that hold lanes in it. */
  readonly #membersOf = new Map<number, number>();
  #lastStep = 0;
  kill: ObservedKill | undefined;

  /** Takes note of a response; returns the step in it, if there is one. */
  observe(response: WatchRunResponse): ObservedStep | undefined {
    const { event, step, evaluation } = response;
    if (evaluation) this.#evaluations.set(evaluation.step, { step: evaluation.step, metrics: evaluation.metrics });
    if (event) this.#noteMembers(event.fields);
    if (event) this.#events.push({ timeSeconds: event.timeSeconds, kind: event.kind, message: event.message });
    if (!step) return undefined;
    const known = this.#steps.get(step.step);
    if (known && known.generation >= step.generation) return undefined;
    const observed = fromRecord(step);
    this.#steps.set(step.step, observed);
    this.#lastStep = Math.max(this.#lastStep, step.step);
    return observed;
  }

  /** In the order of the steps. */
  get steps(): ObservedStep[] {
    return [...this.#steps.values()].sort((a, b) => a.step - b.step);
  }

  /** In the order of the steps. */
  get evaluations(): ObservedEvaluation[] {
    return [...this.#evaluations.values()].sort((a, b) => a.step - b.step);
  }

  /** The newest `count` steps, oldest first. */
  lastSteps(count: number): ObservedStep[] {
    const newest = this.lastStep;
    const steps: ObservedStep[] = [];
    for (let step = Math.max(1, newest - count + 1); step <= newest; step++) {
      const observed = this.#steps.get(step);
      if (observed) steps.push(observed);
    }
    return steps;
  }

  /** Mean loss of the `count` steps before a step. */
  meanLossBefore(step: number, count: number): number {
    const losses = this.steps.filter((one) => one.step < step && one.step >= step - count).map(({ loss }) => loss);
    return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  }

  /** Number of the newest step; 0 before the first. */
  get lastStep(): number {
    return this.#lastStep;
  }

  get events(): readonly ObservedEvent[] {
    return this.#events;
  }

  /** The first step committed after the killed worker's generation was over. */
  get firstStepAfterKill(): ObservedStep | undefined {
    const { kill } = this;
    return kill && this.steps.find((step) => step.generation > kill.generation && step.timeSeconds >= kill.atSeconds);
  }

  /** From the kill to the next committed step of a generation without the dead worker, seconds. */
  get recoverySeconds(): number | undefined {
    const next = this.firstStepAfterKill;
    return this.kill && next ? next.timeSeconds - this.kill.atSeconds : undefined;
  }

  /** From the kill to the first step of the generation that the replacement takes part in, seconds. */
  get replacedSeconds(): number | undefined {
    const { kill } = this;
    const recovered = this.firstStepAfterKill;
    if (!kill || !recovered) return undefined;
    const alone = this.#membersOf.get(recovered.generation) ?? 0;
    // A later generation may also be the survivors' alone.
    const full = this.steps.find(
      (step) => step.step >= recovered.step && (this.#membersOf.get(step.generation) ?? 0) > alone,
    );
    return full && full.timeSeconds - kill.atSeconds;
  }

  #noteMembers(fields: Readonly<Record<string, string>>): void {
    const generation = Number(fields['generation']);
    const members = Number(fields['members']);
    if (generation > 0 && members > 0) this.#membersOf.set(generation, members);
  }
}

function fromRecord(record: StepRecord): ObservedStep {
  const { step, generation, loss, logitScale, gradNorm, learningRate, stepSeconds, phaseSeconds, timeSeconds } = record;
  const measures = { ...record.metrics, ...record.health };
  return {
    step,
    generation,
    loss,
    logitScale,
    gradNorm,
    learningRate,
    stepSeconds,
    phaseSeconds,
    timeSeconds,
    measures,
  };
}

/** Median of the time between one step and the next, seconds, the first `skip` steps left out: they fill caches. */
export function medianStepSeconds(steps: readonly Pick<ObservedStep, 'timeSeconds'>[], skip: number): number {
  const gaps = steps
    .slice(skip)
    .map((step, i, kept) => (i === 0 ? Number.NaN : step.timeSeconds - kept[i - 1]!.timeSeconds));
  const sorted = gaps.slice(1).sort((a, b) => a - b);
  return sorted.length === 0 ? Number.NaN : sorted[Math.floor(sorted.length / 2)]!;
}
