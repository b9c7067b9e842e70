import { assert, CoveyError } from '../../common/errors.ts';
import { type Engine, rootScope, tf } from '../../engine/index.ts';
import type { NamedVariable } from '../../models/named-variables.ts';
import type { EmbeddingHealth } from '../eval/embedding-health.ts';
import type { LaneGradients, LaneStatistics, Objective, TrainedModel } from '../objectives/objective.ts';
import { type BlockingCollectives, NOBODY } from './blocking-collectives.ts';
import { type FlatLayout, flatLayout } from './flat-layout.ts';
import { GlobalLoss, LOSS_OPS } from './global-loss.ts';
import { GradientSink } from './gradient-sink.ts';
import { type EncodedLane, LaneEncoder, type LaneInput } from './lane-encoder.ts';
import { sharedFloats } from './lane-gather.ts';
import { type LaneSchedule, laneSchedule } from './lane-schedule.ts';
import { LearntScalars } from './learnt-scalars.ts';
import { PhaseTimer } from './phase-timer.ts';
import type { StateHeader, StateView } from './state-layout.ts';
import { TogetherEncoder } from './together-encoder.ts';
import { TogetherPass } from './together-pass.ts';
import { WeightUpdater, type WeightUpdaterOptions } from './weight-updater.ts';

export type { LaneInput } from './lane-encoder.ts';

export interface StepResult {
  readonly loss: number;
  /** What similarities are multiplied by, after the update: exp(logit scale), or 1/temperature. */
  readonly logitScale: number;
  /** The objective's metrics by name, means over the global batch. */
  readonly metrics: Readonly<Record<string, number>>;
  /** Of the mean gradient, before clipping. */
  readonly gradNorm: number;
  readonly skipped: boolean;
  readonly phaseSeconds: Readonly<Record<string, number>>;
}

export interface LaneTrainerOptions {
  readonly globalBatch: number;
  readonly laneCount: number;
  readonly imageSide: number;
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
  readonly precision: 'fp32' | 'bf16';
  readonly gradClipNorm: number | undefined;
  readonly nonFinite: 'skip' | 'stop';
  /** How the weights change. */
  readonly updater: WeightUpdaterOptions;
  /** Whether lanes are encoded twice, so that one tape is held and not those of all held lanes. Same bits. Default false. */
  readonly gradCache?: boolean;
  /** Samples that go through the model at once; divides the lane's. Fewer than the lane's implies `gradCache`. Default: the lane's. */
  readonly microBatch?: number | undefined;
  /** Batch norms take their statistics over all lanes: those held go through the model side by side. Default false. */
  readonly synchronised?: boolean;
}

/** Collective operations of one step: those of the loss, one reduction per bucket, two exchanges per synchronised batch norm. */
const OP_FIRST_BUCKET = LOSS_OPS;

interface SweepModules {
  readonly collectives: BlockingCollectives;
  /** Of the reductions that are under way. */
  readonly tickets: number[];
  readonly timer: PhaseTimer;
}

function awaitAll(tickets: readonly number[], collectives: BlockingCollectives): void {
  rootScope('collectives', () => {
    for (const ticket of tickets) collectives.wait(ticket);
  });
}

/**
 * The training step of one worker: its lanes forward, the objective's exact global loss, its lanes backward while the reduction of
 * finished buckets is already on its way, one update of the weights. Owns the model's optimiser state; the caller owns the rest.
 *
 * Every lane is computed as its own fixed-shape micro-batch and summed in the fixed lane tree, so the update has the same bits
 * whoever holds which lanes.
 */
export class LaneTrainer {
  readonly layout: FlatLayout;
  readonly #options: LaneTrainerOptions;
  readonly #engine: Engine;
  readonly #objective: Objective;
  readonly #buffers: readonly NamedVariable[];
  readonly #statistics: LaneStatistics | undefined;
  readonly #updater: WeightUpdater;
  readonly #variables: tf.Variable[];
  /** Those that are not frozen: backward computes no other gradient. */
  readonly #trainable: tf.Variable[];
  readonly #scalars: LearntScalars;
  readonly #encoder: LaneEncoder;
  /** In the encoder's place where batch norms are synchronised. */
  readonly #together: TogetherPass | undefined;
  /** Collective operations of a step. */
  readonly #opCount: number;
  readonly #loss: GlobalLoss;
  readonly #reduced: Float32Array;
  /** Sums of the chunks of a lane, where lanes are not encoded whole. */
  #laneSums: Float32Array | undefined;
  #microBatch: number;
  #schedule: LaneSchedule | undefined;
  #partials: Float32Array[] = [];
  #skippedSteps = 0;

  constructor(
    options: LaneTrainerOptions,
    modules: { readonly engine: Engine; readonly model: TrainedModel; readonly objective: Objective },
  ) {
    const { engine, model, objective } = modules;
    this.#options = options;
    this.#engine = engine;
    this.#objective = objective;
    this.#buffers = model.buffers ?? [];
    this.#statistics = model.statistics;
    const statistics = model.statistics?.length ?? 0;
    this.layout = flatLayout(model.parameters, 1 + objective.metrics.length + statistics);
    this.#variables = model.parameters.map((parameter) => parameter.variable);
    this.#scalars = new LearntScalars(engine, objective.scalars, model.parameters);
    this.#encoder = new LaneEncoder(
      { laneBatch: this.#laneBatch, ...options },
      { objective, statistics: this.#statistics },
    );
    const isTogether = options.synchronised === true && model.statistics !== undefined;
    this.#opCount = OP_FIRST_BUCKET + this.layout.buckets.length + (isTogether ? 2 * model.statistics.norms! : 0);
    this.#updater = new WeightUpdater(options.updater, {
      engine,
      variables: this.#variables,
      slots: this.layout.slots,
      buffers: this.#buffers.map(({ variable }) => variable),
    });
    this.#trainable = this.#updater.trainable.map((index) => this.#variables[index]!);
    this.#loss = new GlobalLoss(options, { engine, objective, scalars: this.#scalars });
    this.#together = isTogether
      ? new TogetherPass({
          encoder: new TogetherEncoder(
            { laneBatch: this.#laneBatch, ...options },
            { model, objective, statistics: model.statistics },
          ),
          loss: this.#loss,
          scalars: this.#scalars,
          trainable: this.#updater.trainable,
        })
      : undefined;
    this.#reduced = sharedFloats(this.layout.totalFloats);
    this.#microBatch = options.microBatch ?? this.#laneBatch;
  }

  /** Samples that go through the model at once. */
  get microBatch(): number {
    return this.#microBatch;
  }

  /** To be set between steps; see `LaneTrainerOptions`. */
  set microBatch(samples: number) {
    this.#microBatch = samples;
  }

  /** Takes a range of lanes for the next steps. */
  holdLanes(begin: number, end: number): void {
    this.#schedule = laneSchedule(this.#options.laneCount, { begin, end });
    while (this.#partials.length < this.#schedule.bufferCount)
      this.#partials.push(sharedFloats(this.layout.totalFloats));
  }

  /**
   * One step. `lanes` are the held lanes in order. Throws what the collectives throw (ABORTED, TIMEOUT, …); the weights are then
   * unchanged and the step can be computed again. Throws NON_FINITE where the policy is `stop`.
   */
  step(stepIndex: number, lr: number, lanes: readonly LaneInput[], collectives: BlockingCollectives): StepResult {
    const timer = new PhaseTimer();
    const encoded: EncodedLane[] = [];
    const tickets: number[] = [];
    const opBase = stepIndex * this.#opCount;
    try {
      if (this.#together !== undefined) {
        const opFirstNorm = opBase + OP_FIRST_BUCKET + this.layout.buckets.length;
        const sinkOf = (position: number) => this.#sink(position, opBase, collectives, tickets);
        this.#together.run({ opBase, opFirstNorm, lanes, collectives, timer, sinkOf });
      } else {
        if (!this.#loss.isLocal) for (const input of lanes) encoded.push(this.#forward(input));
        timer.mark('forward');
        this.#loss.gather(opBase, collectives);
        this.#backward(opBase, lanes, encoded, { collectives, tickets, timer });
      }
      awaitAll(tickets, collectives);
      timer.mark('reduce');
    } finally {
      for (const lane of encoded) lane.dispose();
    }
    const result = rootScope('optimiser', () => this.#update(stepIndex, lr, timer));
    return { ...result, phaseSeconds: timer.seconds };
  }

  /** Of what the last step gathered, which the weights before its update made. */
  embeddingHealth(): EmbeddingHealth {
    return this.#loss.embeddingHealth();
  }

  /**
   * What a step does with one lane, without anybody else and without effect on the training: for finding out what it needs. Lanes must be
   * held anew afterwards.
   */
  rehearse(input: LaneInput): void {
    this.holdLanes(input.lane, input.lane + 1);
    const lane = this.#forward(input);
    try {
      const tickets: number[] = [];
      this.#backward(0, [input], [lane], { collectives: NOBODY, tickets, timer: new PhaseTimer() });
      awaitAll(tickets, NOBODY);
    } finally {
      lane.dispose();
    }
  }

  get #isChunked(): boolean {
    return this.#microBatch < this.#laneBatch;
  }

  get #laneBatch(): number {
    return this.#options.globalBatch / this.#options.laneCount;
  }

  /** Encodes a lane and writes what others need of it into its block of the gather. */
  #forward(input: LaneInput): EncodedLane {
    const isTwice = this.#isChunked || (this.#options.gradCache === true && !this.#loss.isLocal);
    const encoded = isTwice ? this.#encoder.encodeTwice(input, this.#microBatch) : this.#encoder.encode(input);
    this.#loss.share(input, encoded);
    return encoded;
  }

  /** Where no lane's loss needs another lane, none is encoded yet: each is swept as soon as it is, and one tape is all that is ever held. */
  #backward(
    opBase: number,
    lanes: readonly LaneInput[],
    encoded: readonly EncodedLane[],
    { collectives, tickets, timer }: SweepModules,
  ): void {
    const loss = this.#loss.open(opBase, lanes, encoded, collectives);
    try {
      timer.mark('gather');
      for (const [position, input] of lanes.entries()) {
        const one = encoded[position] ?? this.#forward(input);
        timer.mark('forward');
        try {
          const result = loss.gradients(input, one);
          this.#sweep(one, result, this.#sink(position, opBase, collectives, tickets));
        } finally {
          one.dispose();
        }
        timer.mark('backward');
      }
    } finally {
      loss.dispose();
    }
  }

  /** A lane's backward, into the sink. Disposes the objective's gradients. */
  #sweep(lane: EncodedLane, result: LaneGradients, sink: GradientSink): void {
    try {
      const { lossSum, metricSums, dScalars } = result;
      sink.scalars([lossSum, ...metricSums, ...lane.statistics], this.#scalars.gradients(dScalars));
      lane.backward(result.dOutputs, this.#trainable, (at, gradient, isLastChunk) =>
        sink.gradient(this.#updater.trainable[at]!, gradient, isLastChunk),
      );
      rootScope('gradient sums', () => sink.finish());
    } finally {
      tf.dispose(result.dOutputs.filter((one) => one !== null));
    }
  }

  #sink(position: number, opBase: number, collectives: BlockingCollectives, tickets: number[]): GradientSink {
    const schedule = this.#schedule;
    assert(schedule !== undefined, 'lanes are held before a step');
    if (this.#isChunked) this.#laneSums ??= new Float32Array(this.layout.totalFloats);
    return new GradientSink(position, {
      engine: this.#engine,
      layout: this.layout,
      schedule,
      buffers: this.#partials,
      reduced: this.#reduced,
      collectives,
      opFirstBucket: opBase + OP_FIRST_BUCKET,
      tickets,
      laneSums: this.#isChunked ? this.#laneSums : undefined,
    });
  }

  #update(step: number, lr: number, timer: PhaseTimer): Omit<StepResult, 'phaseSeconds'> {
    const { globalBatch, gradClipNorm, nonFinite } = this.#options;
    const gradient = this.#reduced.subarray(0, this.layout.parameterFloats);
    const loss = this.#reduced[this.layout.parameterFloats]! / globalBatch;
    const gradNorm = Math.sqrt(this.#engine.sumOfSquares(gradient)) / globalBatch;
    const finite = Number.isFinite(loss) && Number.isFinite(gradNorm);
    if (!finite && nonFinite === 'stop') {
      throw new CoveyError('NON_FINITE', `Cannot apply the step: loss is ${loss}, gradient norm is ${gradNorm}`, {
        fields: { loss, gradNorm },
      });
    }
    if (finite) {
      const clip = gradClipNorm === undefined ? 1 : Math.min(1, gradClipNorm / (gradNorm + 1e-6));
      this.#updater.step({ gradient, gradientScale: clip / globalBatch, lr });
      this.#scalars.clamp();
      this.#updater.average();
      this.#moveOn(step);
    } else {
      this.#skippedSteps++;
    }
    timer.mark('optim');
    const logitScale = this.#objective.similarityScale(this.#scalars.read());
    return { loss, logitScale, metrics: this.#readMetrics(), gradNorm, skipped: !finite };
  }

  /** What is state and not weights follows the update. */
  #moveOn(step: number): void {
    const statistics = this.#statistics;
    if (statistics !== undefined) {
      const first = this.layout.totalFloats - statistics.length;
      statistics.apply(this.#reduced.slice(first).map((sum) => sum / this.#options.laneCount));
    }
    this.#objective.afterUpdate?.(this.#loss.finished(step));
  }

  #readMetrics(): Record<string, number> {
    const first = this.layout.parameterFloats + 1;
    const { globalBatch } = this.#options;
    return Object.fromEntries(
      this.#objective.metrics.map((name, i) => [name, this.#reduced[first + i]! / globalBatch]),
    );
  }

  get skippedSteps(): number {
    return this.#skippedSteps;
  }

  /** 16 hex digits over the bits of the weights and the model's buffers. */
  weightsDigest(): string {
    return this.#engine.digest([...this.#variables, ...this.#buffers.map(({ variable }) => variable)]);
  }

  /** Names of the parts of the training state, in order. */
  get stateSections(): readonly string[] {
    return this.#updater.sections;
  }

  get bufferFloats(): number {
    return this.#buffers.reduce((floats, { variable }) => floats + variable.size, 0);
  }

  /** Copies the whole training state out. `step` is the index of the next step. */
  exportState(view: StateView, step: number): void {
    this.#updater.exportState(view, { step, skippedSteps: this.#skippedSteps });
  }

  /** Takes over a training state; returns the header. */
  importState(view: StateView): StateHeader {
    const header = this.#updater.importState(view);
    this.#skippedSteps = header.skippedSteps;
    return header;
  }

  /** The last reduced gradient sum and extras, for tests and diagnosis. */
  get reducedGradient(): Float32Array {
    return this.#reduced;
  }

  dispose(): void {
    this.#updater.dispose();
  }
}
