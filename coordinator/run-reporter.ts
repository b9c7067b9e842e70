import type { Clock } from '../common/clock.ts';
import { afterMeasurement, NO_ALARM } from '../common/collapse.ts';
import type { Logger } from '../common/log.ts';
import type { Evaluation } from '../proto/gen/covey/v1/Evaluation.ts';
import type { Run } from '../proto/gen/covey/v1/Run.ts';
import type { StepRecord } from '../proto/gen/covey/v1/StepRecord.ts';
import { runStatus } from './core/run-state.ts';
import type { CoreEffect, RunCoreState } from './core/types.ts';
import { LearningMetrics } from './learning-metrics.ts';
import type { CoordinatorMetrics } from './metrics.ts';
import type { StepHistory } from './step-history.ts';
import type { Watchers } from './watchers.ts';

export interface RunReporterOptions {
  readonly run: string;
  readonly globalBatch: number;
}

export interface RunReporterModules {
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: CoordinatorMetrics | null;
  readonly history: StepHistory;
  readonly watchers: Watchers;
}

/** What the sender of an event reported besides. */
export interface ReportedFacts {
  readonly record?: StepRecord;
  readonly evaluation?: Evaluation;
}

/** Tells people what the core decided: watchers, metrics, the log. */
export class RunReporter {
  readonly #options: RunReporterOptions;
  readonly #modules: RunReporterModules;
  readonly #learning: LearningMetrics | null;
  #eventSequence = 0;
  #alarm = NO_ALARM;

  constructor(options: RunReporterOptions, modules: RunReporterModules) {
    this.#options = options;
    this.#modules = modules;
    this.#learning = modules.metrics && new LearningMetrics(options.run, modules.metrics);
    modules.metrics?.globalBatchSize.set({ run: options.run }, options.globalBatch);
  }

  /** `facts` came with the event that caused the effect. */
  report(effect: CoreEffect, snapshot: () => Run, { record, evaluation }: ReportedFacts): void {
    const { run } = this.#options;
    const { metrics } = this.#modules;
    switch (effect.kind) {
      case 'record-step':
        if (record) this.#recordStep(record, effect.result, snapshot);
        return;
      case 'record-evaluation':
        if (evaluation) this.#recordEvaluation(evaluation);
        return;
      case 'adopt-steps':
        metrics?.samples.inc({ run }, (effect.to - effect.from) * this.#options.globalBatch);
        metrics?.steps.inc({ run, result: 'committed' }, effect.to - effect.from);
        return;
      case 'abort-step':
        metrics?.steps.inc({ run, result: 'aborted' });
        return;
      case 'membership':
        metrics?.membershipChanges.inc({ run, reason: effect.change });
        return;
      case 'fenced':
        metrics?.fenced.inc({ run, rpc: effect.what });
        return;
      case 'formed':
        metrics?.rendezvousSeconds.observe({ run }, effect.durationMs / 1000);
        return;
      case 'event':
        this.#event(effect, snapshot());
        return;
      case 'write-head':
      case 'publish':
        return;
    }
  }

  /** Gauges that follow the state. */
  observe(state: RunCoreState): void {
    const { metrics } = this.#modules;
    if (metrics === null) return;
    const { run } = this.#options;
    metrics.setState(run, runStatus(state));
    metrics.generation.set({ run }, state.generation);
    metrics.step.set({ run }, state.currentStep);
    const counts = new Map<string, number>();
    for (const member of state.members.values()) counts.set(member.phase, (counts.get(member.phase) ?? 0) + 1);
    for (const phase of ['loading', 'joined', 'quiesced', 'ready', 'stepping', 'draining']) {
      metrics.workers.set({ run, state: phase }, counts.get(phase) ?? 0);
    }
    const checkpoint = state.checkpoints.at(-1);
    if (checkpoint === undefined) return;
    metrics.checkpointStep.set({ run }, checkpoint.step);
    metrics.checkpointTime.set({ run }, checkpoint.createdAtSeconds);
    metrics.checkpointBytes.set({ run }, checkpoint.bytes);
  }

  #recordStep(record: StepRecord, result: 'committed' | 'recomputed' | 'late', snapshot: () => Run): void {
    const { run } = this.#options;
    const { metrics, history, watchers, logger } = this.#modules;
    history.add(record);
    watchers.publish({ run: null, event: null, step: record, evaluation: null });
    logger.debug({ step: record.step, generation: record.generation, loss: record.loss, result }, 'step committed');
    if (result !== 'late') this.#watchHealth(record, snapshot);
    if (metrics === null) return;
    // A late record's step was counted when it was adopted, a recomputed one's when it was first committed.
    if (result === 'committed') {
      metrics.samples.inc({ run }, record.samples);
      metrics.steps.inc({ run, result: 'committed' });
    }
    metrics.stepSeconds.observe({ run }, record.stepSeconds);
    metrics.loss.set({ run }, record.loss);
    metrics.logitScale.set({ run }, record.logitScale);
    metrics.gradNorm.set({ run }, record.gradNorm);
    metrics.learningRate.set({ run }, record.learningRate);
    if (record.skipped) metrics.nonFinite.inc({ run });
    this.#learning?.step(record);
  }

  #recordEvaluation(evaluation: Evaluation): void {
    const { history, watchers, logger } = this.#modules;
    const { step, generation, metrics, seconds } = evaluation;
    history.addEvaluation(evaluation);
    watchers.publish({ run: null, event: null, step: null, evaluation });
    logger.info({ step, generation, seconds, ...metrics }, 'evaluated on held-out data');
    this.#learning?.evaluation(evaluation);
  }

  /** Says once when the embeddings have collapsed, and once when they have come back. */
  #watchHealth(record: StepRecord, snapshot: () => Run): void {
    if (Object.keys(record.health).length === 0) return;
    const before = this.#alarm.collapsed;
    this.#alarm = afterMeasurement(this.#alarm, record.health);
    const { collapsed } = this.#alarm;
    this.#learning?.collapsed(collapsed.length > 0);
    for (const embedding of collapsed.filter((one) => !before.includes(one))) {
      const stdRatio = record.health[`${embedding}.std_ratio`]!.toFixed(4);
      const message = `the embedding '${embedding}' has collapsed: nearly every input gives the same point`;
      const fields = { step: String(record.step), embedding, stdRatio };
      this.#event({ kind: 'event', about: 'warning', message, fields }, snapshot());
    }
    for (const embedding of before.filter((one) => !collapsed.includes(one))) {
      const message = `the embedding '${embedding}' is spread again`;
      this.#event(
        { kind: 'event', about: 'step', message, fields: { step: String(record.step), embedding } },
        snapshot(),
      );
    }
  }

  #event(effect: Extract<CoreEffect, { kind: 'event' }>, run: Run): void {
    const { watchers, clock, logger } = this.#modules;
    this.#eventSequence += 1;
    const { about, message, fields } = effect;
    const timeSeconds = clock.now() / 1000;
    watchers.publish({
      run,
      event: { sequence: this.#eventSequence, timeSeconds, kind: about, message, fields: { ...fields } },
      step: null,
      evaluation: null,
    });
    if (about === 'warning') logger.warn(fields, message);
    else logger.info({ about, ...fields }, message);
  }
}
