import { randomUUID } from 'node:crypto';
import type { Clock } from '../common/clock.ts';
import { CoveyError } from '../common/errors.ts';
import type { CommitCheckpointRequest } from '../proto/gen/covey/v1/CommitCheckpointRequest.ts';
import type { CommitStepRequest } from '../proto/gen/covey/v1/CommitStepRequest.ts';
import type { CommitStepResponse } from '../proto/gen/covey/v1/CommitStepResponse.ts';
import type { HeartbeatRequest } from '../proto/gen/covey/v1/HeartbeatRequest.ts';
import type { HeartbeatResponse } from '../proto/gen/covey/v1/HeartbeatResponse.ts';
import type { JoinRequest } from '../proto/gen/covey/v1/JoinRequest.ts';
import type { JoinResponse } from '../proto/gen/covey/v1/JoinResponse.ts';
import type { LeaveRequest } from '../proto/gen/covey/v1/LeaveRequest.ts';
import type { ReportEvaluationRequest } from '../proto/gen/covey/v1/ReportEvaluationRequest.ts';
import type { ReportFailureRequest } from '../proto/gen/covey/v1/ReportFailureRequest.ts';
import type { Coordinator } from './coordinator.ts';
import type { Published } from './core/types.ts';
import type { CoordinatorMetrics } from './metrics.ts';
import type { RunDriver } from './run-driver.ts';
import { assignmentToWire, checkpointFromWire, memberPhaseFromWire } from './wire.ts';

/** A waiting member's heartbeat is held this long at most. */
const HOLD_MAX_MS = 250;

export interface WorkerServiceModules {
  readonly coordinator: Coordinator;
  readonly clock: Clock;
  readonly metrics: CoordinatorMetrics | null;
}

/** What workers ask, as plain async functions: messages in, messages out, CoveyErrors thrown. */
export class WorkerApi {
  readonly #modules: WorkerServiceModules;
  /** member → what it was answered last, while it waits for more. */
  readonly #answered = new WeakMap<RunDriver, Map<string, Published | null>>();

  constructor(modules: WorkerServiceModules) {
    this.#modules = modules;
  }

  async join(request: JoinRequest): Promise<JoinResponse> {
    const { coordinator } = this.#modules;
    if (request.incarnation === '')
      throw new CoveyError('INVALID_ARGUMENT', 'Cannot join: incarnation is empty; send one unique per process start');
    const driver = request.run === '' ? coordinator.runForWorker() : coordinator.get(request.run);
    await driver.beforeWorker();
    const { incarnation, host, pid, weight, loading } = request;
    const { reply } = await driver.perform({
      kind: 'join',
      memberId: `w-${randomUUID().slice(0, 12)}`,
      incarnation,
      loading,
      host,
      pid,
      weight,
    });
    const memberId = reply.memberId ?? '';
    const { config, configJson, configSha256 } = driver.options;
    return {
      run: driver.run,
      memberId,
      slot: driver.members.get(memberId)?.slot ?? 0,
      configJson,
      configSha256,
      heartbeatIntervalMs: Math.round(config.timing.heartbeatSeconds * 1000),
      leaseTtlMs: Math.round(config.timing.leaseSeconds * 1000),
      natsUrl: coordinator.natsUrl,
    };
  }

  /** `signal` aborts when the caller has gone. */
  async heartbeat(request: HeartbeatRequest, signal: AbortSignal): Promise<HeartbeatResponse> {
    const driver = this.#modules.coordinator.get(request.run);
    await driver.beforeWorker();
    const { memberId, generation, appliedStep, hasWeights, suspects } = request;
    const phase = memberPhaseFromWire(request.state);
    await driver.perform({
      kind: 'heartbeat',
      memberId,
      generation,
      phase,
      appliedStep,
      hasWeights,
      digest: request.weightsDigest,
      suspects,
    });
    const slot = driver.members.get(memberId)?.slot;
    this.#modules.metrics?.lastHeartbeat.set(
      { run: driver.run, worker: String(slot) },
      this.#modules.clock.now() / 1000,
    );
    const answered = this.#answeredOf(driver);
    const waits = phase === 'joined' || phase === 'quiesced' || phase === 'ready';
    if (waits && answered.get(memberId) === driver.published) {
      const holdMs = Math.min(HOLD_MAX_MS, driver.options.config.timing.heartbeatSeconds * 1000);
      await driver.publishedBeyond(driver.published, holdMs, signal);
    }
    const { published } = driver;
    for (const id of answered.keys()) if (!driver.members.has(id)) answered.delete(id);
    answered.set(memberId, published);
    const dismissed = driver.members.get(memberId)?.dismissed === true;
    // What it was kept for must be in HEAD before it goes.
    if (dismissed && driver.isSettled) return { assignment: assignmentToWire(driver.dismissal(), driver.members) };
    return { assignment: published && assignmentToWire(published, driver.members) };
  }

  async leave(request: LeaveRequest): Promise<void> {
    const driver = this.#modules.coordinator.get(request.run);
    await driver.perform({ kind: 'leave', memberId: request.memberId, reason: request.reason });
  }

  async commitStep(request: CommitStepRequest): Promise<CommitStepResponse> {
    const driver = this.#modules.coordinator.get(request.run);
    await driver.beforeWorker();
    const { record, memberId, generation } = request;
    if (record === null || record.step < 1)
      throw new CoveyError('INVALID_ARGUMENT', 'Cannot commit: the request carries no step record');
    const timed = { ...record, generation, timeSeconds: record.timeSeconds || this.#modules.clock.now() / 1000 };
    const event = { kind: 'commit', memberId, generation, step: record.step, digest: record.weightsDigest } as const;
    const outcome = await driver.perform(event, { record: timed });
    if (request.badSamples.length > 0)
      this.#modules.metrics?.badSamples.inc({ run: driver.run }, request.badSamples.length);
    return { diverged: outcome.reply.diverged === true };
  }

  async commitCheckpoint(request: CommitCheckpointRequest): Promise<void> {
    const driver = this.#modules.coordinator.get(request.run);
    if (request.checkpoint === null)
      throw new CoveyError('INVALID_ARGUMENT', 'Cannot commit: the request carries no checkpoint');
    const { memberId, generation } = request;
    const wire = request.checkpoint;
    const checkpoint = checkpointFromWire({
      ...wire,
      createdAtSeconds: wire.createdAtSeconds || this.#modules.clock.now() / 1000,
    });
    await driver.perform({ kind: 'checkpoint', memberId, generation, checkpoint });
  }

  async reportEvaluation(request: ReportEvaluationRequest): Promise<void> {
    const driver = this.#modules.coordinator.get(request.run);
    const { memberId, generation, evaluation } = request;
    if (evaluation === null)
      throw new CoveyError('INVALID_ARGUMENT', 'Cannot take an evaluation: the request carries none');
    const timeSeconds = evaluation.timeSeconds || this.#modules.clock.now() / 1000;
    const event = { kind: 'evaluation', memberId, generation, step: evaluation.step } as const;
    await driver.perform(event, { evaluation: { ...evaluation, generation, timeSeconds } });
  }

  async reportFailure(request: ReportFailureRequest): Promise<void> {
    const driver = this.#modules.coordinator.get(request.run);
    const { memberId, generation, code, message } = request;
    await driver.perform({ kind: 'failure', memberId, generation, code, message });
  }

  #answeredOf(driver: RunDriver): Map<string, Published | null> {
    const known = this.#answered.get(driver) ?? new Map<string, Published | null>();
    this.#answered.set(driver, known);
    return known;
  }
}
