import { CoveyError } from '../../common/errors.ts';
import { type Engine, pixelsToTensor, type Recording, recordForward, rootScope, tf } from '../../engine/index.ts';
import type { ClipModel } from '../../models/clip/clip-model.ts';
import { clipLaneGradients, clipLogSumExps, type GlobalEmbeddings } from '../objectives/clip.ts';
import type { BlockingCollectives } from './blocking-collectives.ts';
import { type FlatLayout, flatLayout } from './flat-layout.ts';
import { type LaneSchedule, laneSchedule } from './lane-schedule.ts';
import { PhaseTimer } from './phase-timer.ts';
import type { StateHeader, StateView } from './state-layout.ts';
import { WeightUpdater, type WeightUpdaterOptions } from './weight-updater.ts';

/** One lane's inputs: `laneBatch` pictures and captions. */
export interface LaneInput {
  readonly lane: number;
  /** uint8 RGB, [b, side, side, 3]. */
  readonly pixels: Uint8Array;
  /** Token ids, [b, contextLength]. */
  readonly tokens: Int32Array;
}

export interface StepResult {
  readonly loss: number;
  /** exp(logit scale) after the update. */
  readonly logitScale: number;
  /** Of the mean gradient, before clipping. */
  readonly gradNorm: number;
  readonly skipped: boolean;
  readonly phaseSeconds: Readonly<Record<string, number>>;
}

export interface LaneTrainerOptions {
  readonly globalBatch: number;
  readonly laneCount: number;
  readonly imageSide: number;
  readonly embedDim: number;
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
  readonly precision: 'fp32' | 'bf16';
  readonly gradClipNorm: number | undefined;
  readonly nonFinite: 'skip' | 'stop';
  /** Natural log. */
  readonly logitScaleMax: number;
  /** How the weights change. */
  readonly updater: WeightUpdaterOptions;
}

/** Collective operations of one step: gather embeddings, gather log-sum-exps, then one reduction per bucket. */
const OP_GATHER_EMBEDDINGS = 0;
const OP_GATHER_LSE = 1;
const OP_FIRST_BUCKET = 2;

function sharedFloats(count: number): Float32Array {
  return new Float32Array(new SharedArrayBuffer(4 * count));
}

/**
 * The training step of one worker: its lanes forward, the exact global loss, its lanes backward while the reduction of finished
 * buckets is already on its way, one update of the weights. Owns the optimiser's state; the caller owns the model and the engine.
 *
 * Every lane is computed as its own fixed-shape micro-batch and summed in the fixed lane tree, so the update has the same bits
 * whoever holds which lanes.
 */
export class LaneTrainer {
  readonly layout: FlatLayout;
  readonly #options: LaneTrainerOptions;
  readonly #engine: Engine;
  readonly #model: ClipModel;
  readonly #updater: WeightUpdater;
  readonly #logitScaleIndex: number;
  readonly #variables: tf.Variable[];
  /** Those that are not frozen: backward computes no other gradient. */
  readonly #trainable: tf.Variable[];
  readonly #gathered: Float32Array;
  readonly #logSumExps: Float32Array;
  readonly #reduced: Float32Array;
  #schedule: LaneSchedule | undefined;
  #buffers: Float32Array[] = [];
  #skippedSteps = 0;

  constructor(options: LaneTrainerOptions, modules: { readonly engine: Engine; readonly model: ClipModel }) {
    this.#options = options;
    this.#engine = modules.engine;
    this.#model = modules.model;
    this.layout = flatLayout(modules.model.parameters);
    this.#variables = modules.model.parameters.map((parameter) => parameter.variable);
    this.#logitScaleIndex = modules.model.parameters.findIndex((parameter) => parameter.name === 'logit_scale');
    this.#updater = new WeightUpdater(options.updater, {
      engine: modules.engine,
      variables: this.#variables,
      slots: this.layout.slots,
    });
    this.#trainable = this.#updater.trainable.map((index) => this.#variables[index]!);
    const { globalBatch, embedDim } = options;
    this.#gathered = sharedFloats(2 * globalBatch * embedDim);
    this.#logSumExps = sharedFloats(2 * globalBatch);
    this.#reduced = sharedFloats(this.layout.totalFloats);
  }

  /** Takes a range of lanes for the next steps. */
  holdLanes(begin: number, end: number): void {
    this.#schedule = laneSchedule(this.#options.laneCount, { begin, end });
    while (this.#buffers.length < this.#schedule.bufferCount) this.#buffers.push(sharedFloats(this.layout.totalFloats));
  }

  /**
   * One step. `lanes` are the held lanes in order. Throws what the collectives throw (ABORTED, TIMEOUT, …); the weights are then
   * unchanged and the step can be computed again. Throws NON_FINITE where the policy is `stop`.
   */
  step(stepIndex: number, lr: number, lanes: readonly LaneInput[], collectives: BlockingCollectives): StepResult {
    const timer = new PhaseTimer();
    const recordings: Recording[] = [];
    const opBase = stepIndex * (OP_FIRST_BUCKET + this.layout.buckets.length);
    try {
      for (const input of lanes) recordings.push(this.#forward(input));
      timer.mark('forward');
      rootScope('collectives', () =>
        collectives.allGather(
          opBase + OP_GATHER_EMBEDDINGS,
          8 * this.#laneBatch * this.#options.embedDim,
          bytesOf(this.#gathered),
        ),
      );
      timer.mark('gather');
      this.#backward(opBase, lanes, recordings, collectives, timer);
    } finally {
      for (const recording of recordings) recording.dispose();
    }
    const result = rootScope('optimiser', () => this.#update(lr, timer));
    return { ...result, phaseSeconds: timer.seconds };
  }

  get #laneBatch(): number {
    return this.#options.globalBatch / this.#options.laneCount;
  }

  /** Encodes a lane and writes its embeddings into its block of the gather buffer: [image rows | text rows]. */
  #forward(input: LaneInput): Recording {
    const { imageSide, embedDim, mean, std, precision } = this.#options;
    const batch = this.#laneBatch;
    const pixels_BHWC = rootScope('host copies', () =>
      pixelsToTensor(input.pixels, [batch, imageSide, imageSide, 3], { mean, std, precision }),
    );
    let recording: Recording;
    try {
      recording = recordForward(() => [
        this.#model.encodeImage(pixels_BHWC),
        this.#model.encodeText(input.tokens, batch),
      ]);
    } finally {
      pixels_BHWC.dispose();
    }
    const block = input.lane * 2 * batch * embedDim;
    rootScope('host copies', () => {
      recording.outputs.forEach((embeddings_BD, side) => {
        const begin = block + side * batch * embedDim;
        this.#engine.readInto(embeddings_BD, this.#gathered.subarray(begin, begin + batch * embedDim));
      });
    });
    return recording;
  }

  /** Uploads all lanes' embeddings as two [N, D] tensors in lane order. The caller disposes them. */
  #globalEmbeddings(): GlobalEmbeddings {
    const { globalBatch, laneCount, embedDim } = this.#options;
    const half = this.#laneBatch * embedDim;
    const image = new Float32Array(globalBatch * embedDim);
    const text = new Float32Array(globalBatch * embedDim);
    for (let lane = 0; lane < laneCount; lane++) {
      image.set(this.#gathered.subarray(2 * lane * half, (2 * lane + 1) * half), lane * half);
      text.set(this.#gathered.subarray((2 * lane + 1) * half, (2 * lane + 2) * half), lane * half);
    }
    return {
      image_ND: tf.tensor2d(image, [globalBatch, embedDim]),
      text_ND: tf.tensor2d(text, [globalBatch, embedDim]),
    };
  }

  #backward(
    opBase: number,
    lanes: readonly LaneInput[],
    recordings: readonly Recording[],
    collectives: BlockingCollectives,
    timer: PhaseTimer,
  ): void {
    const all = rootScope('host copies', () => this.#globalEmbeddings());
    const scale = Math.exp(this.#readLogitScale());
    const lse = this.#exchangeLogSumExps(opBase, lanes, all, scale, collectives);
    timer.mark('gather');
    const tickets: number[] = [];
    try {
      lanes.forEach((input, position) => {
        const rows = { begin: input.lane * this.#laneBatch, count: this.#laneBatch };
        const gradients = rootScope('loss', () => clipLaneGradients(this.#engine, all, lse, rows, scale));
        const sink = this.#gradientSink(position, opBase, collectives, tickets);
        sink.scalars(gradients.lossSum, gradients.dLogitScaleSum);
        recordings[position]!.backward([gradients.dImage_RD, gradients.dText_RD], this.#trainable, (at, gradient) =>
          sink.gradient(this.#updater.trainable[at]!, gradient),
        );
        rootScope('gradient sums', () => sink.finish());
        tf.dispose([gradients.dImage_RD, gradients.dText_RD]);
      });
      timer.mark('backward');
      rootScope('collectives', () => {
        for (const ticket of tickets) collectives.wait(ticket);
      });
      timer.mark('reduce');
    } finally {
      tf.dispose([all.image_ND, all.text_ND, lse.imageLse_N, lse.textLse_N]);
    }
  }

  #exchangeLogSumExps(
    opBase: number,
    lanes: readonly LaneInput[],
    all: GlobalEmbeddings,
    scale: number,
    collectives: BlockingCollectives,
  ): { imageLse_N: tf.Tensor1D; textLse_N: tf.Tensor1D } {
    const batch = this.#laneBatch;
    for (const { lane } of lanes) {
      const block = this.#logSumExps.subarray(2 * lane * batch, 2 * (lane + 1) * batch);
      rootScope('loss', () => clipLogSumExps(this.#engine, all, { begin: lane * batch, count: batch }, scale, block));
    }
    rootScope('collectives', () => collectives.allGather(opBase + OP_GATHER_LSE, 8 * batch, bytesOf(this.#logSumExps)));
    const image = new Float32Array(this.#options.globalBatch);
    const text = new Float32Array(this.#options.globalBatch);
    for (let lane = 0; lane < this.#options.laneCount; lane++) {
      image.set(this.#logSumExps.subarray(2 * lane * batch, (2 * lane + 1) * batch), lane * batch);
      text.set(this.#logSumExps.subarray((2 * lane + 1) * batch, 2 * (lane + 1) * batch), lane * batch);
    }
    return { imageLse_N: tf.tensor1d(image), textLse_N: tf.tensor1d(text) };
  }

  /** Where one lane's gradients go: into its partial-sum buffer, merged along the tree, and off to the reduction as soon as the
   * worker's last lane has finished a bucket. */
  #gradientSink(position: number, opBase: number, collectives: BlockingCollectives, tickets: number[]) {
    const schedule = this.#schedule;
    const laneStep = schedule?.steps[position];
    if (schedule === undefined || laneStep === undefined) {
      throw new CoveyError('INTERNAL', 'invariant broken: a lane is computed that is not held', {
        fields: { position },
      });
    }
    const isLastLane = position === schedule.steps.length - 1;
    const buffer = this.#buffers[laneStep.buffer]!;
    const { slots, parameterFloats, totalFloats, buckets, bucketOf } = this.layout;
    const missing = buckets.map((bucket) => bucket.parameters.length);
    const seen = new Uint8Array(slots.length);

    const complete = (index: number, begin: number, end: number): void => {
      seen[index] = 1;
      for (const { target, source } of laneStep.merges) {
        this.#engine.addVectors(
          this.#buffers[target]!.subarray(begin, end),
          this.#buffers[source]!.subarray(begin, end),
        );
      }
      const bucketIndex = bucketOf[index]!;
      missing[bucketIndex]!--;
      if (isLastLane && missing[bucketIndex] === 0) {
        const bucket = buckets[bucketIndex]!;
        const partials = schedule.results.map((result) => this.#buffers[result]!.subarray(bucket.begin, bucket.end));
        const out = this.#reduced.subarray(bucket.begin, bucket.end);
        const op = opBase + OP_FIRST_BUCKET + bucketIndex;
        tickets.push(rootScope('collectives', () => collectives.startTreeAllReduce(op, partials, out)));
      }
    };
    const addScalar = (offset: number, value: number): void => {
      // Rounded before it is added, as it is where the lane is alone in its buffer: else the bits would depend on who holds it.
      const rounded = Math.fround(value);
      buffer[offset] = laneStep.starts ? rounded : buffer[offset]! + rounded;
    };
    return {
      /** The extras and the logit scale's gradient, which the objective computes itself. */
      scalars: (lossSum: number, dLogitScaleSum: number): void => {
        addScalar(parameterFloats, lossSum);
        for (const { target, source } of laneStep.merges) {
          const begin = parameterFloats;
          this.#engine.addVectors(
            this.#buffers[target]!.subarray(begin, totalFloats),
            this.#buffers[source]!.subarray(begin, totalFloats),
          );
        }
        const { offset } = slots[this.#logitScaleIndex]!;
        addScalar(offset, dLogitScaleSum);
        complete(this.#logitScaleIndex, offset, offset + 1);
      },
      gradient: (index: number, gradient: tf.Tensor): void => {
        if (index === this.#logitScaleIndex) return;
        const { offset, length } = slots[index]!;
        const region = buffer.subarray(offset, offset + length);
        rootScope('gradient sums', () => {
          if (laneStep.starts) this.#engine.readInto(gradient, region);
          else this.#engine.addInto(gradient, region);
          complete(index, offset, offset + length);
        });
      },
      /** Parameters that this lane's loss does not reach count as zero. */
      finish: (): void => {
        slots.forEach(({ offset, length }, index) => {
          if (seen[index]) return;
          if (laneStep.starts) buffer.fill(0, offset, offset + length);
          complete(index, offset, offset + length);
        });
      },
    };
  }

  #update(lr: number, timer: PhaseTimer): Omit<StepResult, 'phaseSeconds'> {
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
      this.#clampLogitScale();
      this.#updater.average();
    } else {
      this.#skippedSteps++;
    }
    timer.mark('optim');
    return { loss, logitScale: Math.exp(this.#readLogitScale()), gradNorm, skipped: !finite };
  }

  #readLogitScale(): number {
    const value = new Float32Array(1);
    this.#engine.readInto(this.#variables[this.#logitScaleIndex]!, value);
    return value[0]!;
  }

  /** To [0, logitScaleMax] after each update (numerics: Radford et al. 2021 §2.5; a missing clamp ends in NaN). */
  #clampLogitScale(): void {
    const value = this.#readLogitScale();
    const clamped = Math.min(Math.max(value, 0), this.#options.logitScaleMax);
    if (clamped !== value) this.#engine.writeFrom(this.#variables[this.#logitScaleIndex]!, new Float32Array([clamped]));
  }

  get skippedSteps(): number {
    return this.#skippedSteps;
  }

  /** 16 hex digits over the weights' bits. */
  weightsDigest(): string {
    return this.#engine.digest(this.#variables);
  }

  /** Names of the parts of the training state, in order. */
  get stateSections(): readonly string[] {
    return this.#updater.sections;
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

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
