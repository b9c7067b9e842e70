import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import { assert, type CoveyError } from '../../common/errors.ts';
import type { Assignment as WireAssignment } from '../../proto/gen/covey/v1/Assignment.ts';
import type { JoinResponse } from '../../proto/gen/covey/v1/JoinResponse.ts';
import type { WorkerClient } from '../../proto/worker-client.ts';
import type { WrittenCheckpoint } from '../checkpoint/write-checkpoint.ts';
import type { Evaluation } from '../eval/evaluation.ts';
import type { SessionStatus } from '../session.ts';
import type { AppliedStep } from '../train/step-loop.ts';
import type { Assignment, Phase } from './assignment.ts';

/** What this worker tells about itself. */
export interface WorkerIdentity {
  readonly engine: string;
  readonly threads: number;
  /** Relative speed; lanes are leased in proportion. */
  readonly weight: number;
}

/** A committed or to-be-committed step as it is reported. */
export interface StepReport {
  readonly generation: number;
  readonly globalBatch: number;
  readonly applied: AppliedStep;
}

export interface EvaluationReport {
  readonly generation: number;
  readonly evaluation: Evaluation;
}

const PHASES: Readonly<Record<string, Phase>> = {
  PHASE_QUIESCE: 'QUIESCE',
  PHASE_HEAL: 'HEAL',
  PHASE_RUN: 'RUN',
  PHASE_CHECKPOINT_AND_LEAVE: 'CHECKPOINT_AND_LEAVE',
  PHASE_LEAVE: 'LEAVE',
};

const JOIN_TIMEOUT_MS = 15_000;
const REPORT_TIMEOUT_MS = 5_000;
const CHECKPOINT_TIMEOUT_MS = 60_000;

/** The worker's membership of one run, in the protocol's terms. Translates; decides nothing. */
export class CoordinatorLink {
  readonly #client: WorkerClient;
  readonly #identity: WorkerIdentity;
  #joined: JoinResponse | undefined;

  constructor(identity: WorkerIdentity, client: WorkerClient) {
    this.#identity = identity;
    this.#client = client;
  }

  get joined(): JoinResponse {
    assert(this.#joined !== undefined, 'the worker has joined');
    return this.#joined;
  }

  /** Joins `run` (empty: any run that wants workers); joining again makes a new member. `loading`: not ready for lanes yet. */
  async join(run: string, options: { readonly loading: boolean }, signal?: AbortSignal): Promise<JoinResponse> {
    const request = {
      run,
      ...options,
      incarnation: randomUUID(),
      host: hostname(),
      pid: process.pid,
      ...this.#identity,
    };
    this.#joined = await this.#client.join(request, { timeoutMs: JOIN_TIMEOUT_MS, ...(signal && { signal }) });
    return this.#joined;
  }

  async heartbeat(
    status: SessionStatus,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<{ assignment: Assignment | undefined }> {
    const { run, memberId, slot } = this.joined;
    const { assignment } = await this.#client.heartbeat(
      {
        run,
        memberId,
        slot,
        host: hostname(),
        pid: process.pid,
        weight: this.#identity.weight,
        generation: status.generation,
        state: `MEMBER_STATE_${status.state}`,
        appliedStep: status.appliedStep,
        hasWeights: status.hasWeights,
        weightsDigest: status.weightsDigest,
        suspects: [...status.suspects],
      },
      { timeoutMs, signal },
    );
    return { assignment: assignment ? fromWire(assignment) : undefined };
  }

  async commitStep({ generation, globalBatch, applied }: StepReport): Promise<{ diverged: boolean }> {
    const { run, memberId } = this.joined;
    const { reply, loaded, wallSeconds, dataSeconds } = applied;
    const { diverged } = await this.#client.commitStep(
      {
        run,
        memberId,
        generation,
        record: {
          step: loaded.step + 1,
          generation,
          loss: reply.loss,
          logitScale: reply.logitScale,
          gradNorm: reply.gradNorm,
          learningRate: reply.learningRate,
          samples: globalBatch,
          weightsDigest: reply.weightsDigest,
          stepSeconds: wallSeconds,
          phaseSeconds: { ...reply.phaseSeconds, data: dataSeconds },
          skipped: reply.skipped,
          timeSeconds: Date.now() / 1000,
          peakMemoryBytes: reply.engineMemory.peakBytes,
          metrics: { ...reply.metrics },
          health: { ...reply.health?.measures },
          similarities: reply.health?.similarities.map(({ counts, ...one }) => ({ ...one, counts: [...counts] })) ?? [],
        },
        badSamples: loaded.replaced.map(({ sampleId, reason, replacedBy }) => ({ sampleId, reason, replacedBy })),
      },
      { timeoutMs: REPORT_TIMEOUT_MS },
    );
    return { diverged };
  }

  async reportEvaluation({ generation, evaluation }: EvaluationReport): Promise<void> {
    const { run, memberId } = this.joined;
    const { step, metrics, weightsDigest, seconds } = evaluation;
    const similarities = evaluation.similarities.map(({ counts, ...one }) => ({ ...one, counts: [...counts] }));
    const timeSeconds = Date.now() / 1000;
    await this.#client.reportEvaluation(
      {
        run,
        memberId,
        generation,
        evaluation: { step, generation, metrics: { ...metrics }, similarities, weightsDigest, seconds, timeSeconds },
      },
      { timeoutMs: REPORT_TIMEOUT_MS },
    );
  }

  async commitCheckpoint(written: WrittenCheckpoint, generation: number): Promise<void> {
    const { run, memberId } = this.joined;
    await this.#client.commitCheckpoint(
      { run, memberId, generation, checkpoint: { ...written, generation, createdAtSeconds: Date.now() / 1000 } },
      { timeoutMs: CHECKPOINT_TIMEOUT_MS },
    );
  }

  async reportFailure(error: CoveyError, generation: number): Promise<void> {
    const { run, memberId } = this.joined;
    await this.#client.reportFailure(
      { run, memberId, generation, code: error.code, message: error.message },
      { timeoutMs: REPORT_TIMEOUT_MS },
    );
  }

  async leave(generation: number, reason: string): Promise<void> {
    const { run, memberId } = this.joined;
    await this.#client.leave({ run, memberId, generation, reason }, { timeoutMs: REPORT_TIMEOUT_MS });
  }
}

function fromWire(wire: WireAssignment): Assignment | undefined {
  const phase = PHASES[wire.phase];
  if (phase === undefined) return undefined;
  const { checkpoint } = wire;
  return {
    generation: wire.generation,
    phase,
    members: wire.members.map(({ memberId, laneBegin, laneEnd }) => ({ memberId, laneBegin, laneEnd })),
    startStep: wire.startStep,
    healSources: wire.healSources,
    checkpoint: checkpoint?.manifestKey
      ? { manifestKey: checkpoint.manifestKey, manifestSha256: checkpoint.manifestSha256, step: checkpoint.step }
      : undefined,
    reason: wire.reason,
  };
}
