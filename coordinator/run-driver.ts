import type { Clock } from '../common/clock.ts';
import type { RunConfig } from '../common/config/run-config.ts';
import { CoveyError } from '../common/errors.ts';
import type { Logger } from '../common/log.ts';
import type { Checkpoint } from '../proto/gen/covey/v1/Checkpoint.ts';
import type { Run } from '../proto/gen/covey/v1/Run.ts';
import type { WatchRunResponse } from '../proto/gen/covey/v1/WatchRunResponse.ts';
import { newRun, restoreRun, runStatus, wantsWorkers } from './core/run-state.ts';
import { transition } from './core/transition.ts';
import type { CoreEvent, MemberRecord, Outcome, Published, RunCoreState, RunSettings } from './core/types.ts';
import type { HeadRecord, HeadStore } from './head-store.ts';
import { HeadWriter } from './head-writer.ts';
import type { CoordinatorMetrics } from './metrics.ts';
import { type ReportedFacts, RunReporter } from './run-reporter.ts';
import { settingsOf } from './run-settings.ts';
import { StepHistory } from './step-history.ts';
import { Watchers } from './watchers.ts';
import { checkpointToWire, membersToWire, runStateToWire } from './wire.ts';

/** Callers that wait for a HEAD write, at most: more means that the store is away, and they are told so. */
const HEAD_WAITERS_MAX = 1_024;
/** A coordinator that lost a run takes it back once HEAD has rested this many leases and a worker asks for it here. */
const REVIVE_LEASES = 5;
/** HEAD is read again before a restored run's first member is heard, unless it was read within this time. */
const FRESH_MS = 500;

export interface RunDriverOptions {
  readonly config: RunConfig;
  readonly configJson: string;
  readonly configSha256: string;
}

export interface RunDriverModules {
  readonly head: HeadStore;
  readonly clock: Clock;
  readonly logger: Logger;
  readonly metrics: CoordinatorMetrics | null;
}

interface HeadWaiter {
  readonly sequence: number;
  readonly settle: (failure: CoveyError | null) => void;
}

/** One run: feeds what happens to the core and carries out what the core decides. Owns no truth; HEAD does. */
export class RunDriver {
  readonly options: RunDriverOptions;
  readonly #modules: RunDriverModules;
  readonly #settings: RunSettings;
  readonly #history = new StepHistory();
  readonly #watchers = new Watchers();
  readonly #reporter: RunReporter;
  readonly #writer: HeadWriter;
  readonly #publishWaiters = new Set<() => void>();
  readonly #createdAtSeconds: number;
  #headWaiters: HeadWaiter[] = [];
  #state: RunCoreState;
  #lastReadMs: number;
  #lostAtMs = 0;
  #askedAtMs = 0;
  #polling: Promise<void> | null = null;

  /** `modules.head` has been read or created: its record is where the run stands. */
  constructor(options: RunDriverOptions, modules: RunDriverModules) {
    const record = modules.head.known;
    if (record === null)
      throw new CoveyError('INTERNAL', `Cannot drive run ${options.config.run}: its HEAD was not read`);
    this.options = options;
    this.#modules = modules;
    this.#settings = settingsOf(options.config);
    const nowMs = modules.clock.now();
    this.#state = this.#stateFrom(record, nowMs);
    this.#createdAtSeconds = record.createdAtSeconds;
    this.#lastReadMs = nowMs;
    const { clock, metrics } = modules;
    const logger = modules.logger.child({ run: options.config.run });
    this.#reporter = new RunReporter(
      { run: options.config.run, globalBatch: options.config.train.globalBatch },
      { clock, logger, metrics, history: this.#history, watchers: this.#watchers },
    );
    this.#writer = new HeadWriter({
      head: modules.head,
      clock,
      logger,
      onWritten: (sequence) => {
        this.feed({ kind: 'head-written', sequence });
        this.#settleWaiters(sequence, null);
      },
      onLost: (by) => this.#stepDown(by),
      onResult: (result) => metrics?.headWrites.inc({ run: options.config.run, result }),
    });
    metrics?.runInfo.set({ run: options.config.run, config_sha: options.configSha256.slice(0, 12) }, 1);
    this.#reporter.observe(this.#state);
  }

  get run(): string {
    return this.options.config.run;
  }

  get wantsWorkers(): boolean {
    return wantsWorkers(this.#state);
  }

  get createdAtSeconds(): number {
    return this.#createdAtSeconds;
  }

  get published(): Published | null {
    return this.#state.published;
  }

  get members(): ReadonlyMap<string, MemberRecord> {
    return this.#state.members;
  }

  /** Every HEAD write asked for is durable. */
  get isSettled(): boolean {
    return this.#state.headSequence <= this.#writer.durable;
  }

  /** What a dismissed member is told, whatever the others are. */
  dismissal(): Published {
    const { generation, startStep } = this.#state;
    const reason = 'nothing is left to do for a worker that drains';
    return {
      generation,
      phase: 'leave',
      leases: [],
      startStep,
      healSources: [],
      checkpoint: null,
      reason,
    };
  }

  /** Feeds the core and carries out its effects. `facts` is what the event's sender reported besides. */
  feed(event: CoreEvent, facts: ReportedFacts = {}): Outcome {
    const outcome = transition(this.#state, event, this.#modules.clock.now());
    this.#state = outcome.state;
    if (outcome.reason !== '')
      this.#modules.logger.debug({ run: this.run, event: event.kind, reason: outcome.reason }, 'decided');
    for (const effect of outcome.effects) {
      if (effect.kind === 'write-head') this.#writer.write(effect.sequence, effect.head);
      this.#reporter.report(effect, () => this.snapshot(), facts);
    }
    if (outcome.effects.length > 0) this.#reporter.observe(this.#state);
    if (outcome.effects.some((effect) => effect.kind === 'publish')) this.#wakePublishWaiters();
    if (this.#isOver()) this.#watchers.end();
    return outcome;
  }

  /** Feeds the core; throws where it refuses, and waits for the HEAD write that the answer depends on. */
  async perform(event: CoreEvent, facts: ReportedFacts = {}): Promise<Outcome> {
    const outcome = this.feed(event, facts);
    if (outcome.refusal) {
      throw new CoveyError(outcome.refusal.code, outcome.refusal.message, {
        fields: { run: this.run, generation: this.#state.headGeneration },
      });
    }
    const sequence = outcome.reply.afterHead;
    if (sequence !== undefined && sequence > this.#writer.durable) await this.#headWritten(sequence);
    return outcome;
  }

  tick(): void {
    if (this.#state.lifecycle !== 'superseded') this.feed({ kind: 'tick' });
    const nowMs = this.#modules.clock.now();
    if (this.#isOver() || nowMs < this.#lastReadMs + this.#settings.leaseTtlMs) return;
    this.refresh();
  }

  /** Called before a worker is heard: a restored run nobody has spoken to may be out of date. */
  async beforeWorker(): Promise<void> {
    this.#askedAtMs = this.#modules.clock.now();
    if (this.#isUnclaimed() && this.#askedAtMs > this.#lastReadMs + FRESH_MS) await this.refresh();
  }

  /** Compares HEAD with what is known of it. Moved by another hand: a run without members here is read anew, another is given up. */
  refresh(): Promise<void> {
    this.#polling ??= this.#poll()
      .catch((thrown: unknown) => {
        this.#modules.logger.debug({ run: this.run, reason: CoveyError.from(thrown).message }, 'HEAD not read');
      })
      .finally(() => {
        this.#polling = null;
      });
    return this.#polling;
  }

  /** Resolves when the assignment moves on from `seen`, or after `timeoutMs`. */
  async publishedBeyond(seen: Published | null, timeoutMs: number, signal: AbortSignal): Promise<void> {
    if (this.#state.published !== seen) return;
    const done = new AbortController();
    await new Promise<void>((resolve) => {
      const wake = () => {
        this.#publishWaiters.delete(wake);
        done.abort();
        resolve();
      };
      this.#publishWaiters.add(wake);
      this.#modules.clock.sleep(timeoutMs, AbortSignal.any([signal, done.signal])).then(wake, wake);
    });
  }

  snapshot(): Run {
    const state = this.#state;
    const { options } = this;
    const checkpoint = state.checkpoints.at(-1);
    return {
      run: this.run,
      state: runStateToWire(runStatus(state)),
      step: state.currentStep,
      totalSteps: this.#settings.totalSteps,
      generation: state.generation,
      members: membersToWire(state.members.values(), state.leases),
      configJson: options.configJson,
      configSha256: options.configSha256,
      lastStep: this.#history.newest,
      lastCheckpoint: checkpoint ? checkpointToWire(checkpoint) : null,
      reason: state.reason,
      createdAtSeconds: this.#createdAtSeconds,
      samplesPerSecond: this.#history.samplesPerSecond(),
      lastEvaluation: this.#history.newestEvaluation,
    };
  }

  checkpoints(): Checkpoint[] {
    return this.#state.checkpoints.map(checkpointToWire);
  }

  /** The run, its remembered steps after `afterStep`, then what happens, until the run is over. */
  async *watch(afterStep: number, signal: AbortSignal): AsyncGenerator<WatchRunResponse, void, undefined> {
    // Subscribed before the history is read, so that nothing falls between them.
    const live = this.#watchers.subscribe(signal);
    try {
      const past = this.#history.after(afterStep);
      const nothing = { run: null, event: null, step: null, evaluation: null };
      yield { ...nothing, run: this.snapshot() };
      for (const one of past) yield { ...nothing, ...one };
      if (this.#isOver()) return;
      yield* live;
      if (!signal.aborted) yield { ...nothing, run: this.snapshot() };
    } finally {
      await live.return();
    }
  }

  async close(): Promise<void> {
    this.#watchers.end(new CoveyError('UNAVAILABLE', 'the coordinator closes; watch again when it is back'));
    this.#wakePublishWaiters();
    await this.#writer.close();
    this.#settleWaiters(
      Number.POSITIVE_INFINITY,
      new CoveyError('UNAVAILABLE', 'the coordinator closes; nothing is known of the HEAD write'),
    );
    await this.#polling;
  }

  #stateFrom(record: HeadRecord, nowMs: number): RunCoreState {
    // version 1 was written by SubmitRun and by nobody since.
    return record.version === 1 ? newRun(this.#settings, nowMs) : restoreRun(this.#settings, record, nowMs);
  }

  /** Nothing more will happen here unless somebody asks for it. */
  #isOver(): boolean {
    const { lifecycle, phase } = this.#state;
    return (lifecycle === 'stopped' || lifecycle === 'finished' || lifecycle === 'failed') && phase === 'leave';
  }

  #isUnclaimed(): boolean {
    return ![...this.#state.members.values()].some((member) => member.heard) && !this.#writer.busy;
  }

  async #poll(): Promise<void> {
    const { head, clock } = this.#modules;
    if (this.#writer.busy) return;
    const moved = await head.moved();
    // A write begun meanwhile finds out by itself.
    if (this.#writer.busy) return;
    this.#lastReadMs = clock.now();
    if (this.#state.lifecycle === 'superseded') return this.#pollSuperseded(moved);
    if (!moved) return;
    const unclaimed = this.#isUnclaimed();
    const record = await head.read();
    if (record === null || !unclaimed) return this.#stepDown(record?.coordinatorId ?? 'whoever deleted it');
    this.#adoptRecord(record);
  }
  /** Whoever moved HEAD may be gone by now: takes the run back where workers ask for it here and HEAD rests. */
  async #pollSuperseded(moved: boolean): Promise<void> {
    const { head, clock } = this.#modules;
    const nowMs = clock.now();
    if (moved) {
      await head.read();
      this.#lostAtMs = nowMs;
      return;
    }
    const rested = nowMs >= this.#lostAtMs + REVIVE_LEASES * this.#settings.leaseTtlMs;
    const asked = nowMs < this.#askedAtMs + this.#settings.leaseTtlMs;
    if (rested && asked && head.known) this.#adoptRecord(head.known);
  }

  #adoptRecord(record: HeadRecord): void {
    this.#state = { ...this.#stateFrom(record, this.#modules.clock.now()), headSequence: this.#writer.durable };
    this.#modules.logger.info(
      { run: this.run, generation: record.generation, step: record.step },
      'run read from HEAD',
    );
    this.#reporter.observe(this.#state);
  }

  #stepDown(by: string): void {
    if (this.#state.lifecycle === 'superseded') return;
    this.#lostAtMs = this.#modules.clock.now();
    this.feed({ kind: 'head-lost', by });
    const lost = new CoveyError('UNAVAILABLE', `Cannot serve run ${this.run}: coordinator ${by} advanced it`, {
      fields: { run: this.run, by },
    });
    this.#settleWaiters(Number.POSITIVE_INFINITY, lost);
    this.#watchers.end(lost);
    this.#wakePublishWaiters();
  }

  #headWritten(sequence: number): Promise<void> {
    if (this.#headWaiters.length >= HEAD_WAITERS_MAX) {
      const message = `Cannot confirm: ${HEAD_WAITERS_MAX} callers wait for HEAD of ${this.run} to be written; is the object store away?`;
      return Promise.reject(new CoveyError('UNAVAILABLE', message));
    }
    return new Promise((resolve, reject) => {
      this.#headWaiters.push({ sequence, settle: (failure) => (failure ? reject(failure) : resolve()) });
    });
  }

  #settleWaiters(sequence: number, failure: CoveyError | null): void {
    const due = this.#headWaiters.filter((waiter) => waiter.sequence <= sequence);
    this.#headWaiters = this.#headWaiters.filter((waiter) => waiter.sequence > sequence);
    for (const waiter of due) waiter.settle(failure);
  }

  #wakePublishWaiters(): void {
    for (const wake of [...this.#publishWaiters]) wake();
  }
}
