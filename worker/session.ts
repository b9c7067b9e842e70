import { evaluationDue } from '../common/config/eval-config.ts';
import { CoveyError, throwIfAborted } from '../common/errors.ts';
import type { Logger } from '../common/log.ts';
import { readCheckpointInto, readManifest } from './checkpoint/read-checkpoint.ts';
import type { CheckpointFacts } from './checkpoint/write-checkpoint.ts';
import type { Assignment, MemberState } from './control/assignment.ts';
import { Mailbox } from './control/mailbox.ts';
import { type Evaluation, evaluate } from './eval/evaluation.ts';
import type { SessionModules } from './session-modules.ts';
import { StateView } from './train/state-layout.ts';
import { type AppliedStep, type LoadedStep, runSteps } from './train/step-loop.ts';

/** What the heartbeat reports of this worker. */
export interface SessionStatus {
  readonly generation: number;
  readonly state: MemberState;
  readonly appliedStep: number;
  readonly hasWeights: boolean;
  readonly weightsDigest: string;
  readonly suspects: readonly string[];
}

export interface SessionEvents {
  /** The status changed in a way the coordinator waits for. */
  onStatus(): void;
  /** A step's data is there and will be computed; it may still be given up. */
  onLoaded(loaded: LoadedStep, generation: number): void;
  onApplied(applied: AppliedStep, generation: number): void;
  /** What was being computed is given up. */
  onGivenUp(loaded: LoadedStep): void;
  /** Resolves once the coordinator was told, or cannot be for now. */
  onEvaluated(evaluation: Evaluation, generation: number): Promise<void>;
  /** The run cannot go on here. The session waits for the coordinator's verdict. */
  onFailure(error: CoveyError): void;
  onPhase(bucket: 'rendezvous' | 'recovery' | 'productive'): void;
}

/**
 * A worker's part in a run, driven by assignments: quiesce, heal, run, leave (docs/protocol.md). One assignment is handled at a
 * time; a newer one interrupts whatever the older one is doing. Weights only ever change by an applied step or by healing.
 */
export class Session {
  readonly #modules: SessionModules;
  readonly #events: SessionEvents;
  readonly #logger: Logger;
  readonly #mailbox = new Mailbox<Assignment>();
  readonly #state: StateView;
  #memberId: string;
  #current: Assignment | undefined;
  #interrupt = new AbortController();
  #stepping: Promise<void> | undefined;
  #status: SessionStatus;
  /** Step whose weights were evaluated last. */
  #evaluatedStep = 0;

  constructor(memberId: string, modules: SessionModules, events: SessionEvents, logger: Logger) {
    this.#memberId = memberId;
    this.#modules = modules;
    this.#events = events;
    this.#logger = logger;
    this.#state = new StateView(modules.stateBuffer, modules.ready);
    this.#status = {
      generation: 0,
      state: 'JOINED',
      appliedStep: 0,
      hasWeights: false,
      weightsDigest: '',
      suspects: [],
    };
  }

  get status(): SessionStatus {
    return this.#status;
  }

  /** Takes note of the assignment in force; repeats of the same one are ignored. */
  assign(assignment: Assignment): void {
    const latest = this.#current;
    if (latest && latest.generation === assignment.generation && latest.phase === assignment.phase) return;
    if (latest && assignment.generation < latest.generation) return;
    this.#current = assignment;
    // A member that merely goes from ready to running is not interrupted.
    if (assignment.phase !== 'RUN') this.#interrupt.abort(new CoveyError('ABORTED', assignment.reason));
    this.#mailbox.put(assignment);
  }

  /** This worker was evicted and has joined again under a new id: whatever it did since is fenced, and it waits to be healed.
   * `keepsWeights`: false where they are known to be wrong. */
  rejoined(memberId: string, keepsWeights: boolean): void {
    this.#memberId = memberId;
    this.#current = undefined;
    this.#interrupt.abort(new CoveyError('ABORTED', 'evicted and joined again'));
    void this.#modules.comms.abort('evicted and joined again').catch(() => undefined);
    const hasWeights = keepsWeights && this.#status.hasWeights;
    this.#update({ generation: 0, state: this.#drained('JOINED'), suspects: [], hasWeights });
  }

  /** Will not take lanes again; the coordinator forms a generation without this worker. */
  drain(): void {
    this.#update({ state: 'DRAINING' });
  }

  /** Handles assignments until LEAVE. Rejects when the signal aborts or when a broken invariant shows. */
  async run(signal: AbortSignal): Promise<void> {
    for (;;) {
      const assignment = await this.#mailbox.take(signal);
      if (this.#interrupt.signal.aborted) this.#interrupt = new AbortController();
      const interrupted = AbortSignal.any([signal, this.#interrupt.signal]);
      this.#logger.debug(
        { generation: assignment.generation, phase: assignment.phase, reason: assignment.reason },
        'assignment',
      );
      try {
        if (await this.#handle(assignment, interrupted)) return;
      } catch (thrown) {
        const error = CoveyError.from(thrown);
        if (signal.aborted) throw error;
        if (interrupted.aborted) continue;
        this.#logger.error({ code: error.code, reason: error.message, ...error.fields }, 'assignment failed');
        this.#fail(error);
      }
    }
  }

  async #handle(assignment: Assignment, signal: AbortSignal): Promise<boolean> {
    switch (assignment.phase) {
      case 'QUIESCE':
        await this.#quiesce(assignment);
        return false;
      case 'HEAL':
        await this.#quiesce(assignment);
        await this.#heal(assignment, signal);
        return false;
      case 'RUN':
        // One that joined after this generation was formed holds no lanes of it: it waits for the next.
        if (assignment.members.some((member) => member.memberId === this.#memberId))
          this.#startStepping(assignment, signal);
        return false;
      case 'CHECKPOINT_AND_LEAVE':
        await this.#quiesce(assignment);
        if (assignment.members[0]?.memberId === this.#memberId) await this.#checkpointNow(assignment, signal);
        return false;
      case 'LEAVE':
        await this.#quiesce(assignment);
        return true;
    }
  }

  /** Evaluates the weights after `step` updates, this worker's lanes of it, or all of them alone: the figures are the same. */
  async #evaluate(step: number, assignment: Assignment, alone: boolean, signal: AbortSignal): Promise<void> {
    throwIfAborted(signal);
    const { compute, config, evaluated } = this.#modules;
    const me = assignment.members.find((member) => member.memberId === this.#memberId);
    if (me === undefined) return;
    const lanes = alone ? { begin: 0, end: config.train.lanes } : { begin: me.laneBegin, end: me.laneEnd };
    const { generation } = assignment;
    const { epoch } = compute;
    this.#logger.debug({ step, generation, alone }, 'evaluation begins');
    const evaluation = await evaluate(
      { step, lanes },
      evaluated,
      (part) => compute.request({ kind: 'evaluate', epoch, generation, step, part, alone }),
      signal,
    );
    this.#evaluatedStep = step;
    await this.#events.onEvaluated(evaluation, generation);
  }

  /** Stops stepping: what is in flight is applied after all or given up. Then the applied step is final for this generation. */
  async #quiesce(assignment: Assignment): Promise<void> {
    this.#events.onPhase(this.#stepping ? 'recovery' : 'rendezvous');
    await this.#modules.comms.abort(`generation ${assignment.generation}: ${assignment.reason}`);
    this.#modules.compute.abandonQueued();
    await this.#stepping;
    this.#stepping = undefined;
    if (this.#status.generation !== assignment.generation || this.#status.state === 'STEPPING') {
      this.#update({ generation: assignment.generation, state: this.#drained('QUIESCED'), suspects: [] });
    }
  }

  /** Sets the collectives up and gets the weights of the start step: own, a peer's, the checkpoint's, or the seed's. */
  async #heal(assignment: Assignment, signal: AbortSignal): Promise<void> {
    const memberId = this.#memberId;
    const { compute, comms, steps, config } = this.#modules;
    const rank = assignment.members.findIndex((member) => member.memberId === memberId);
    const me = assignment.members[rank];
    if (me === undefined) return;
    const lanes = { begin: me.laneBegin, end: me.laneEnd };
    await steps.seek(assignment.startStep, lanes);
    const group = {
      run: config.run,
      generation: assignment.generation,
      rank,
      members: assignment.members,
      laneCount: config.train.lanes,
    };
    await comms.configure(group, { signal, timeoutMs: this.#collectiveTimeoutMs });
    const digest = await this.#getWeights(assignment, signal);
    // Behind the weights: to draw them makes a new trainer.
    await compute.request({ kind: 'holdLanes', ...lanes });
    this.#update({
      state: this.#drained('READY'),
      appliedStep: assignment.startStep,
      hasWeights: true,
      weightsDigest: digest,
    });
  }

  async #getWeights(assignment: Assignment, signal: AbortSignal): Promise<string> {
    const memberId = this.#memberId;
    const { compute, comms } = this.#modules;
    const { healSources, startStep, checkpoint } = assignment;
    if (healSources.includes(memberId)) {
      if (healSources.length < assignment.members.length) {
        await compute.request({ kind: 'exportState', buffer: this.#state.buffer, step: startStep });
        await comms.serveState(this.#state.bytes);
      }
      return this.#status.weightsDigest;
    }
    if (healSources.length > 0) {
      const rank = assignment.members.findIndex((member) => member.memberId === memberId);
      const source = healSources[rank % healSources.length]!;
      await comms.fetchState(source, this.#state.bytes, { signal, timeoutMs: this.#collectiveTimeoutMs });
      this.#logger.info({ source, step: startStep }, 'healed from a peer');
      return this.#importState(startStep);
    }
    if (checkpoint) {
      await this.#loadCheckpoint(checkpoint, signal);
      this.#logger.info({ step: checkpoint.step, manifest: checkpoint.manifestKey }, 'resumed from the checkpoint');
      return this.#importState(startStep);
    }
    const weights = await this.#modules.initialWeights(signal);
    if (weights === undefined && !this.#status.hasWeights && startStep === 0) return this.#modules.ready.weightsDigest;
    return (await compute.request({ kind: 'initialise', weights })).weightsDigest;
  }

  async #importState(startStep: number): Promise<string> {
    const { step, weightsDigest } = await this.#modules.compute.request({
      kind: 'importState',
      buffer: this.#state.buffer,
    });
    if (step !== startStep) {
      throw new CoveyError('DATA_CORRUPT', `Cannot heal: the state received is of step ${step}, not ${startStep}`);
    }
    return weightsDigest;
  }

  async #loadCheckpoint(checkpoint: NonNullable<Assignment['checkpoint']>, signal: AbortSignal): Promise<void> {
    const { store, configSha256, datasetSha256 } = this.#modules;
    const manifest = await readManifest(store, checkpoint.manifestKey, { sha256: checkpoint.manifestSha256, signal });
    for (const [what, theirs, ours] of [
      ['config', manifest.configSha256, configSha256],
      ['dataset', manifest.datasetSha256, datasetSha256],
    ] as const) {
      if (theirs !== ours) {
        throw new CoveyError(
          'INVALID_ARGUMENT',
          `Cannot resume: the ${what} is not the one the checkpoint was made with`,
          {
            fields: { checkpoint: theirs, now: ours },
          },
        );
      }
    }
    await readCheckpointInto(this.#state, manifest, store, signal);
  }

  #startStepping(assignment: Assignment, signal: AbortSignal): void {
    this.#update({ state: this.#drained('STEPPING') });
    this.#events.onPhase('productive');
    const { compute, steps, config, checkpointer } = this.#modules;
    const isWriter = assignment.members[0]?.memberId === this.#memberId;
    this.#stepping = runSteps(
      { generation: assignment.generation, startStep: assignment.startStep, totalSteps: config.train.steps },
      {
        compute,
        logger: this.#logger,
        load: async (step, loadSignal) => {
          const loaded = await steps.load(step, loadSignal);
          this.#events.onLoaded(loaded, assignment.generation);
          return loaded;
        },
        onGivenUp: (loaded) => this.#events.onGivenUp(loaded),
        onApplied: (applied) => {
          this.#update({ appliedStep: applied.loaded.step + 1, weightsDigest: applied.reply.weightsDigest }, false);
          this.#events.onApplied(applied, assignment.generation);
        },
        evaluationDue: (step) => evaluationDue(config.eval, step, config.train.steps),
        evaluate: (step, evalSignal) => this.#evaluate(step, assignment, false, evalSignal),
        afterQueued: (step) => {
          const due = step % config.checkpoint.everySteps === 0 && step < config.train.steps;
          if (isWriter && due) checkpointer.begin(step, this.#checkpointFacts(assignment.generation));
        },
      },
      signal,
    ).catch((thrown) => this.#fail(CoveyError.from(thrown)));
  }

  async #checkpointNow(assignment: Assignment, signal: AbortSignal): Promise<void> {
    const { config } = this.#modules;
    const step = assignment.startStep;
    // The evaluation of the last step fell into a generation that ended: one can make it alone.
    if (evaluationDue(config.eval, step, config.train.steps) && this.#evaluatedStep !== step)
      await this.#evaluate(step, assignment, true, signal);
    await this.#modules.checkpointer.takeNow(assignment.startStep, this.#checkpointFacts(assignment.generation));
  }

  #checkpointFacts(generation: number): CheckpointFacts {
    const { config, configSha256, datasetSha256, ready } = this.#modules;
    return {
      run: config.run,
      generation,
      seed: config.seed,
      configSha256,
      datasetSha256,
      parameters: ready.parameters,
      buffers: ready.buffers,
    };
  }

  /** Lost peers are the coordinator's to judge; anything else ends the run unless a person acts. */
  #fail(error: CoveyError): void {
    if (CoveyError.is(error, 'CANCELLED', 'ABORTED')) return;
    if (CoveyError.is(error, 'TIMEOUT', 'UNAVAILABLE')) {
      const waitingFor = error.fields['waitingFor'];
      const suspects = Array.isArray(waitingFor) ? waitingFor.map(String) : [];
      this.#logger.warn({ reason: error.message, suspects }, 'collective failed; waiting for a new generation');
      this.#update({ suspects: suspects.length > 0 ? suspects : ['unknown'] });
      return;
    }
    this.#events.onFailure(error);
  }

  get #collectiveTimeoutMs(): number {
    return this.#modules.config.timing.collectiveTimeoutSeconds * 1000;
  }

  /** A draining worker stays so whatever else it does. */
  #drained(state: MemberState): MemberState {
    return this.#status.state === 'DRAINING' ? 'DRAINING' : state;
  }

  #update(change: Partial<SessionStatus>, announce = true): void {
    this.#status = { ...this.#status, ...change };
    if (announce) this.#events.onStatus();
  }
}
