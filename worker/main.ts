import { type Clock, systemClock } from '../common/clock.ts';
import { CoveyError } from '../common/errors.ts';
import type { Logger } from '../common/log.ts';
import { WorkerClient } from '../proto/worker-client.ts';
import { Closers } from './closers.ts';
import type { Assignment } from './control/assignment.ts';
import { CommitReporter } from './control/commit-reporter.ts';
import { CoordinatorLink, type EvaluationReport, type StepReport } from './control/coordinator-link.ts';
import { HeartbeatLoop } from './control/heartbeat-loop.ts';
import { Session } from './session.ts';
import type { SessionModules } from './session-modules.ts';
import { SessionOpener } from './session-opener.ts';
import { Telemetry } from './telemetry.ts';
import { BadSampleBudget } from './train/bad-sample-budget.ts';
import { SampleLog } from './train/sample-log.ts';
import type { WorkerModules, WorkerOptions } from './worker-options.ts';

export type { WorkerModules, WorkerOptions } from './worker-options.ts';

const FLUSH_TIMEOUT_MS = 5_000;

/**
 * One worker's life in one run: join, take part until told to leave, leave. The first abort of `signal` drains: the step in
 * flight is given up or finished, lanes go back, a sole holder of the weights checkpoints first; it resolves within
 * timing.drainSeconds. Rejects where the run failed here.
 */
export async function runWorker(options: WorkerOptions, modules: WorkerModules, signal: AbortSignal): Promise<void> {
  const { logger } = modules;
  const closers = new Closers();
  try {
    await new WorkerProcess(options, modules, closers).run(signal);
  } finally {
    await closers.close(logger);
  }
}

class WorkerProcess {
  readonly #options: WorkerOptions;
  readonly #modules: WorkerModules;
  readonly #closers: Closers;
  readonly #clock: Clock;
  readonly #logger: Logger;
  readonly #link: CoordinatorLink;
  readonly #telemetry: Telemetry;
  #failure: CoveyError | undefined;

  constructor(options: WorkerOptions, modules: WorkerModules, closers: Closers) {
    this.#options = options;
    this.#modules = modules;
    this.#closers = closers;
    this.#logger = modules.logger;
    this.#clock = modules.clock ?? systemClock;
    this.#telemetry = closers.add(new Telemetry(modules.metrics), (it) => it.close());
    const client = closers.add(new WorkerClient({ address: options.coordinator }, { clock: this.#clock }), (it) =>
      it.close(),
    );
    const identity = { engine: options.engine ?? 'auto', threads: options.threads, weight: options.weight ?? 1 };
    this.#link = new CoordinatorLink(identity, client);
  }

  async run(signal: AbortSignal): Promise<void> {
    const joined = await this.#link.join(this.#options.run, { loading: true }, signal);
    const logger = this.#logger.child({ run: joined.run, slot: joined.slot });
    logger.info({ memberId: joined.memberId }, 'joined');
    // Heartbeats begin before the engine is loaded, which takes longer than a lease.
    const life = new AbortController();
    let session: Session | undefined;
    let pending: Assignment | undefined;
    const heartbeat = new HeartbeatLoop<Assignment>(
      { intervalMs: joined.heartbeatIntervalMs, timeoutMs: joined.leaseTtlMs },
      {
        beat: (beatSignal) => this.#link.heartbeat(session?.status ?? LOADING, joined.leaseTtlMs, beatSignal),
        onAssignment: (assignment) => {
          pending = assignment;
          session?.assign(assignment);
        },
        // The lease ran out while this process was frozen or cut off. What it did since is fenced.
        onEvicted: (error) => void this.#rejoin(error.message, true, () => session, life.signal),
        logger,
      },
    );
    const beating = heartbeat.run(life.signal);
    try {
      const parts = await new SessionOpener(this.#options, {
        ...this.#modules,
        clock: this.#clock,
        closers: this.#closers,
        telemetry: this.#telemetry,
        link: this.#link,
        logger,
      }).open(joined, signal);
      // Loading may have taken longer than a lease: then this worker is a new member by now.
      session = this.#newSession(this.#link.joined.memberId, parts, heartbeat, logger);
      if (pending) session.assign(pending);
      heartbeat.beatNow();
      await this.#stayUntilReleased(session, parts, signal, logger);
      await this.#link.leave(session.status.generation, this.#failure ? 'failed' : 'released').catch(() => undefined);
    } catch (thrown) {
      const error = CoveyError.from(thrown);
      if (!signal.aborted)
        await this.#link.reportFailure(error, session?.status.generation ?? 0).catch(() => undefined);
      await this.#link.leave(session?.status.generation ?? 0, error.message).catch(() => undefined);
      throw error;
    } finally {
      life.abort(new CoveyError('CANCELLED', 'the worker ends'));
      await beating;
    }
    if (this.#failure) throw this.#failure;
  }

  /** Runs the session; a first signal asks to drain and waits for the release, at most drainSeconds. */
  async #stayUntilReleased(
    session: Session,
    parts: SessionModules,
    signal: AbortSignal,
    logger: Logger,
  ): Promise<void> {
    const end = new AbortController();
    const drain = () => {
      logger.info('draining: giving the lanes back');
      session.drain();
      setTimeout(
        () => end.abort(new CoveyError('TIMEOUT', 'not released within timing.drainSeconds')),
        1000 * parts.config.timing.drainSeconds,
      ).unref();
    };
    if (signal.aborted) drain();
    else signal.addEventListener('abort', drain, { once: true });
    try {
      await session.run(end.signal);
    } catch (thrown) {
      if (!end.signal.aborted) throw thrown;
      logger.warn({ reason: CoveyError.from(thrown).message }, 'left without being released');
    } finally {
      signal.removeEventListener('abort', drain);
      await parts.checkpointer.idle();
    }
  }

  #newSession(memberId: string, parts: SessionModules, heartbeat: HeartbeatLoop<Assignment>, logger: Logger): Session {
    const { globalBatch, lanes } = parts.config.train;
    const budget = new BadSampleBudget(parts.config.data.badSamplesMax);
    const sampleLog = this.#options.sampleLog
      ? new SampleLog(this.#options.sampleLog.replaceAll('{run}', parts.config.run))
      : undefined;
    if (sampleLog) this.#closers.add(sampleLog, (it) => it.close());
    const reporter = new CommitReporter<StepReport>({
      send: (report) => this.#link.commitStep(report),
      onDiverged: (report) => {
        const { loaded, reply } = report.applied;
        logger.error({ step: loaded.step + 1, digest: reply.weightsDigest }, 'weights differ from the committed ones');
        void this.#link
          .leave(report.generation, 'diverged')
          .catch(() => undefined)
          .then(() => this.#rejoin('weights differ from the committed ones', false, () => session));
      },
      clock: this.#clock,
      logger,
    });
    this.#closers.add(reporter, async (it) => {
      await it.flush(FLUSH_TIMEOUT_MS);
      it.close();
    });
    const evaluations = this.#newEvaluationReporter(logger);
    const session: Session = new Session(
      memberId,
      parts,
      {
        onStatus: () => heartbeat.beatNow(),
        onPhase: (bucket) => this.#telemetry.enter(bucket),
        onLoaded: (loaded, generation) => sampleLog?.append(loaded.step, generation, loaded.consumed),
        onGivenUp: (loaded) => this.#telemetry.discarded(loaded, 'aborted'),
        onApplied: (applied, generation) => {
          const { loaded, reply } = applied;
          if (reply.tensorGrowth) {
            logger.warn({ ...reply.tensorGrowth }, 'live tensors keep growing; COVEY_DEBUG_TENSORS=1 names them');
          }
          reporter.report({ generation, globalBatch, applied });
          this.#telemetry.applied(applied, (parts.steps.queuedLanes * globalBatch) / lanes);
          for (const use of applied.reply.engineFallback.newlyHot) {
            logger.warn({ ...use }, 'a hot kernel runs in JavaScript: the engine has none of its own');
          }
          const overBudget = budget.add((loaded.consumed.length * globalBatch) / lanes, loaded.replaced.length);
          if (overBudget) void this.#fail(overBudget, session);
        },
        onEvaluated: async (evaluation, generation) => {
          evaluations.report({ generation, evaluation });
          await evaluations.flush(FLUSH_TIMEOUT_MS);
        },
        onFailure: (error) => void this.#fail(error, session),
      },
      logger,
    );
    return session;
  }

  #newEvaluationReporter(logger: Logger): CommitReporter<EvaluationReport> {
    const reporter = new CommitReporter<EvaluationReport>({
      // Equal on every member: what differs is the step's digest, and that is compared where steps are.
      send: async (report) => {
        await this.#link.reportEvaluation(report);
        return { diverged: false };
      },
      onDiverged: () => undefined,
      clock: this.#clock,
      logger,
    });
    return this.#closers.add(reporter, (it) => it.close());
  }

  /** Tells the coordinator, which ends the run for everyone; the session then hears LEAVE. */
  async #fail(error: CoveyError, session: Session): Promise<void> {
    if (this.#failure) return;
    this.#failure = error;
    this.#logger.error({ code: error.code, reason: error.message, ...error.fields }, 'the run cannot go on here');
    await this.#link.reportFailure(error, session.status.generation).catch((thrown) => {
      this.#logger.warn({ reason: CoveyError.from(thrown).message }, 'failure could not be reported');
    });
  }

  #rejoining: Promise<void> | undefined;

  /** Comes back as a new member, which the next generation heals. */
  #rejoin(
    reason: string,
    keepsWeights: boolean,
    session: () => Session | undefined,
    signal?: AbortSignal,
  ): Promise<void> {
    this.#rejoining ??= (async () => {
      this.#logger.warn({ reason }, 'joining again');
      try {
        const joined = await this.#link.join(this.#link.joined.run, { loading: session() === undefined }, signal);
        session()?.rejoined(joined.memberId, keepsWeights);
      } catch (thrown) {
        if (!signal?.aborted)
          this.#logger.warn({ reason: CoveyError.from(thrown).message }, 'joining again failed; will retry');
      } finally {
        this.#rejoining = undefined;
      }
    })();
    return this.#rejoining;
  }
}

const LOADING = {
  generation: 0,
  state: 'LOADING',
  appliedStep: 0,
  hasWeights: false,
  weightsDigest: '',
  suspects: [],
} as const;
