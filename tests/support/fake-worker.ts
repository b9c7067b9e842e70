import { systemClock } from '../../common/clock.ts';
import { CoveyError } from '../../common/errors.ts';
import { silentLogger } from '../../common/log.ts';
import type { Assignment } from '../../proto/gen/covey/v1/Assignment.ts';
import type { Evaluation } from '../../proto/gen/covey/v1/Evaluation.ts';
import type { JoinResponse } from '../../proto/gen/covey/v1/JoinResponse.ts';
import type { MemberState } from '../../proto/gen/covey/v1/MemberState.ts';
import type { StepRecord } from '../../proto/gen/covey/v1/StepRecord.ts';
import { WorkerClient } from '../../proto/worker-client.ts';
import { CommitReporter } from '../../worker/control/commit-reporter.ts';

/** Stands in for the tensor plane: a step is done once every member of its generation has arrived at it. */
export class StepBarrier {
  readonly #arrivals = new Map<string, { names: Set<string>; release: () => void; done: Promise<void> }>();

  async arrive(generation: number, step: number, name: string, members: number, signal: AbortSignal): Promise<void> {
    const key = `${generation}:${step}`;
    let entry = this.#arrivals.get(key);
    if (entry === undefined) {
      let release = () => {};
      const done = new Promise<void>((resolve) => {
        release = resolve;
      });
      entry = { names: new Set(), release, done };
      this.#arrivals.set(key, entry);
    }
    entry.names.add(name);
    if (entry.names.size === members) entry.release();
    const { done } = entry;
    await new Promise<void>((resolve, reject) => {
      const onAbort = () => reject(signal.reason);
      signal.addEventListener('abort', onAbort, { once: true });
      void done.then(() => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      });
    });
  }
}

export interface FakeWorkerOptions {
  readonly address: string;
  readonly name: string;
  readonly run?: string;
  readonly stepMs?: number;
  /** What its step records say besides. */
  readonly record?: (step: number) => Partial<StepRecord>;
}

/** A worker that speaks the real protocol over real gRPC and computes nothing: its weights are its step number. */
export class FakeWorker {
  readonly #options: FakeWorkerOptions;
  readonly #barrier: StepBarrier;
  readonly #client: WorkerClient;
  /** As the real worker's: in order, again while the coordinator is away, and never holding up a step. */
  readonly #reporter = new CommitReporter<{ generation: number; step: number }>({
    send: ({ generation, step }) => this.#commitOrNote(generation, step),
    onDiverged: () => {
      this.diverged += 1;
    },
    clock: systemClock,
    logger: silentLogger,
  });
  readonly #dead = new AbortController();
  #stepping: AbortController | null = null;
  #acted = '';
  #state: MemberState = 'MEMBER_STATE_JOINED';
  #draining = false;
  frozen = false;
  generation = 0;
  appliedStep = 0;
  hasWeights = false;
  member: JoinResponse | null = null;
  left = false;
  rejoined = 0;
  diverged = 0;
  /** Every assignment acted on, oldest first. */
  readonly seen: Assignment[] = [];
  readonly refusals: CoveyError[] = [];

  constructor(options: FakeWorkerOptions, barrier: StepBarrier) {
    this.#options = options;
    this.#barrier = barrier;
    this.#client = new WorkerClient({ address: options.address }, { clock: systemClock });
  }

  async start(): Promise<this> {
    await this.#join();
    void this.#heartbeats();
    return this;
  }

  async #join(): Promise<void> {
    const { name, run } = this.#options;
    this.member = await this.#client.join({
      run: run ?? '',
      incarnation: `${name}-incarnation`,
      host: name,
      pid: 1,
      weight: 1,
    });
    this.#state = 'MEMBER_STATE_JOINED';
    this.generation = 0;
    this.#acted = '';
  }

  /** The process is gone: no further word. */
  kill(): void {
    this.#stepping?.abort(new Error('killed'));
    this.#dead.abort(new Error('killed'));
    this.#reporter.close();
    this.#client.close();
  }

  drain(): void {
    this.#draining = true;
  }

  commit(generation: number, step: number) {
    const extras = this.#options.record?.(step) ?? {};
    const record = {
      step,
      generation,
      loss: 1 / step,
      samples: 8,
      weightsDigest: `d${step}`,
      stepSeconds: 0.01,
      ...extras,
    };
    return this.#client.commitStep({ run: this.member!.run, memberId: this.member!.memberId, generation, record });
  }

  async #commitOrNote(generation: number, step: number): Promise<{ diverged: boolean }> {
    try {
      return await this.commit(generation, step);
    } catch (thrown) {
      this.refusals.push(CoveyError.from(thrown));
      throw thrown;
    }
  }

  reportEvaluation(generation: number, evaluation: Partial<Evaluation>): Promise<void> {
    const { run, memberId } = this.member!;
    return this.#client.reportEvaluation({ run, memberId, generation, evaluation });
  }

  async #heartbeats(): Promise<void> {
    while (!this.#dead.signal.aborted) {
      if (!this.frozen) await this.#beat().catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  async #beat(): Promise<void> {
    const { run, memberId, slot } = this.member!;
    const state = this.#draining ? 'MEMBER_STATE_DRAINING' : this.#state;
    const weightsDigest = this.hasWeights ? `d${this.appliedStep}` : '';
    const { generation, appliedStep, hasWeights } = this;
    try {
      const beat = {
        run,
        memberId,
        generation,
        state,
        appliedStep,
        hasWeights,
        weightsDigest,
        slot,
        host: 'host',
        pid: 1,
      } as const;
      const { assignment } = await this.#client.heartbeat(beat, { timeoutMs: 1000 });
      if (assignment && !this.frozen) await this.#act(assignment);
    } catch (thrown) {
      if (!CoveyError.is(thrown, 'NOT_FOUND', 'STALE_GENERATION') || this.#dead.signal.aborted) throw thrown;
      this.refusals.push(thrown);
      this.#stepping?.abort(new Error('evicted'));
      this.rejoined += 1;
      await this.#join();
    }
  }

  async #act(assignment: Assignment): Promise<void> {
    const key = `${assignment.generation}:${assignment.phase}`;
    if (key === this.#acted) return;
    this.#acted = key;
    this.seen.push(assignment);
    const own = assignment.members.find((member) => member.memberId === this.member!.memberId);
    if (assignment.phase !== 'PHASE_RUN') this.#stepping?.abort(new Error('assignment moved'));
    this.generation = assignment.generation;
    if (assignment.phase === 'PHASE_QUIESCE') this.#state = 'MEMBER_STATE_QUIESCED';
    if (assignment.phase === 'PHASE_HEAL' && own) {
      if (!assignment.healSources.includes(this.member!.memberId)) this.appliedStep = assignment.startStep;
      this.hasWeights = true;
      this.#state = 'MEMBER_STATE_READY';
    }
    if (assignment.phase === 'PHASE_RUN' && own) {
      this.#state = 'MEMBER_STATE_STEPPING';
      this.#stepping = new AbortController();
      void this.#steps(assignment, this.#stepping.signal).catch(() => undefined);
    }
    if (assignment.phase === 'PHASE_CHECKPOINT_AND_LEAVE' && own?.rank === 0) await this.#checkpoint(assignment);
    if (assignment.phase === 'PHASE_LEAVE') {
      const { run, memberId } = this.member!;
      await this.#client.leave({ run, memberId, generation: this.generation, reason: 'told to' });
      this.left = true;
      this.kill();
    }
  }

  async #checkpoint({ generation, startStep }: Assignment): Promise<void> {
    const { run, memberId } = this.member!;
    const checkpoint = {
      step: startStep,
      generation,
      manifestKey: `step-${startStep}`,
      manifestSha256: 'sha',
      bytes: 10,
    };
    await this.#client.commitCheckpoint({ run, memberId, generation, checkpoint });
  }

  async #steps({ generation, members }: Assignment, signal: AbortSignal): Promise<void> {
    const total = JSON.parse(this.member!.configJson).train.steps as number;
    while (!signal.aborted && this.appliedStep < total) {
      await this.#barrier.arrive(generation, this.appliedStep + 1, this.#options.name, members.length, signal);
      if (signal.aborted) return;
      this.appliedStep += 1;
      this.#reporter.report({ generation, step: this.appliedStep });
      await new Promise((resolve) => setTimeout(resolve, this.#options.stepMs ?? 10));
    }
  }
}
