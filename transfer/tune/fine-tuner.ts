import { throwIfAborted } from '../../common/errors.ts';
import {
  type Engine,
  newOptimizer,
  type Optimizer,
  pixelsToTensor,
  recordForward,
  type Tensor2D,
  tf,
} from '../../engine/index.ts';
import type { HostTensor } from '../../models/formats/safetensors.ts';
import type { ParameterRule } from '../../models/parameter-rules.ts';
import { learningRate } from '../../models/schedule.ts';
import { laneMixing, type Mixing, mixed } from '../../worker/objectives/mixup.ts';
import { smoothedTargets, softmaxLoss } from '../../worker/objectives/softmax-loss.ts';
import type { LabelledSample } from '../data/labelled-set.ts';
import type { PictureSource } from '../data/picture-source.ts';
import type { TransferNetwork } from '../network.ts';
import { BatchPlan, type PlannedSample } from './batch-plan.ts';
import type { TuneRecipe } from './tune-recipe.ts';
import { tuneRules } from './tune-rules.ts';

export interface FineTunerModules {
  readonly engine: Engine;
  readonly network: TransferNetwork;
  readonly pictures: PictureSource;
  readonly train: readonly LabelledSample[];
  /** K: the head's outputs. */
  readonly classes: number;
}

export interface TunedStep {
  readonly step: number;
  /** Mean cross-entropy with the smoothed targets, before the update. */
  readonly loss: number;
  readonly learningRate: number;
  readonly gradientNorm: number;
}

/** Trained parameters and the optimiser's slots: with them the next step has the bits it would have had. */
export interface TunerState {
  readonly step: number;
  readonly optimizerStep: number;
  readonly tensors: ReadonlyMap<string, HostTensor>;
}

/** One phase: the parameters that are trained in it, with their own optimiser. */
interface Phase {
  /** Indices among the network's parameters. */
  readonly trained: readonly number[];
  readonly offsets: readonly number[];
  readonly gradient: Float32Array;
  readonly optimizer: Optimizer;
}

/**
 * Trains a network step by step: AdamW, cosine schedule, gradient clipping; what is frozen is never written and costs no gradient. A step is a
 * function of the recipe, the samples and the state alone. Close with `dispose`; the network stays the caller's.
 */
export class FineTuner {
  readonly rules: readonly ParameterRule[];
  /** Names of what training changes: parameters that are not frozen, statistics that follow. */
  readonly changing: ReadonlySet<string>;
  readonly #recipe: TuneRecipe;
  readonly #modules: FineTunerModules;
  readonly #plan: BatchPlan;
  /** Of the last batch. */
  readonly #laneStatistics: Float32Array;
  #step = 0;
  #phase: Phase | undefined;

  constructor(recipe: TuneRecipe, modules: FineTunerModules) {
    this.#recipe = recipe;
    this.#modules = modules;
    const { network } = modules;
    this.rules = tuneRules(network, recipe);
    const open = network.parameters.filter((_, i) => !this.rules[i]!.frozen);
    const followed = this.#followsStatistics ? network.buffers : [];
    this.changing = new Set([...open, ...followed].map(({ name }) => name));
    this.#laneStatistics = new Float32Array(network.statistics.length);
    this.#plan = new BatchPlan(modules.train, recipe);
  }

  /** Steps taken. */
  get stepsTaken(): number {
    return this.#step;
  }

  async step(signal?: AbortSignal): Promise<TunedStep> {
    throwIfAborted(signal);
    const step = this.#step;
    const phase = this.#enterPhase(step);
    const planned = this.#plan.batchOf(step);
    const pixels = await this.#views(planned, signal);
    const loss = this.#gradient(phase, pixels, planned);
    const gradientNorm = Math.sqrt(this.#modules.engine.sumOfSquares(phase.gradient)) / planned.length;
    const lr = this.#learningRate(step);
    const clip = Math.min(1, this.#recipe.clipNorm / Math.max(gradientNorm, Number.MIN_VALUE));
    phase.optimizer.step({ gradient: phase.gradient, gradientScale: clip / planned.length, lr });
    if (this.#followsStatistics) this.#modules.network.statistics.apply(this.#laneStatistics);
    this.#step = step + 1;
    return { step, loss: loss / planned.length, learningRate: lr, gradientNorm };
  }

  /** Host copies of what training changes. */
  state(): TunerState {
    const { network, engine } = this.#modules;
    const phase = this.#enterPhase(this.#step);
    const tensors = new Map<string, HostTensor>();
    // Also what an earlier phase trained.
    for (const [name, tensor] of network.read((name) => this.changing.has(name))) tensors.set(name, tensor);
    for (const slot of phase.optimizer.slots) {
      phase.trained.forEach((index, i) => {
        const { name, shape, variable } = network.parameters[index]!;
        const values = new Float32Array(variable.size);
        engine.readInto(slot.tensors[i]!, values);
        tensors.set(`${slot.name}/${name}`, { shape, values });
      });
    }
    return { step: this.#step, optimizerStep: phase.optimizer.stepCount, tensors };
  }

  /** Goes on from a state of the same recipe and network. */
  restore({ step, optimizerStep, tensors }: TunerState): void {
    const { network, engine } = this.#modules;
    network.write(new Map([...tensors].filter(([name]) => this.changing.has(name))));
    this.#phase?.optimizer.dispose();
    this.#phase = undefined;
    const phase = this.#enterPhase(step);
    for (const slot of phase.optimizer.slots) {
      phase.trained.forEach((index, i) => {
        const stored = tensors.get(`${slot.name}/${network.parameters[index]!.name}`);
        if (stored !== undefined) engine.writeFrom(slot.tensors[i]!, stored.values);
      });
    }
    phase.optimizer.stepCount = optimizerStep;
    this.#step = step;
  }

  get #followsStatistics(): boolean {
    return this.#recipe.batchNorm === 'batch' && this.#modules.network.statistics.length > 0;
  }

  dispose(): void {
    this.#phase?.optimizer.dispose();
    this.#phase = undefined;
  }

  /** Augmented pictures of a batch; a small set's batch may span several epochs. */
  async #views(planned: readonly PlannedSample[], signal: AbortSignal | undefined): Promise<Uint8Array> {
    const { pictures } = this.#modules;
    const bytes = pictures.imageSide ** 2 * 3;
    const pixels = new Uint8Array(planned.length * bytes);
    let begin = 0;
    while (begin < planned.length) {
      const { epoch } = planned[begin]!;
      const end = planned.findIndex((one, row) => row > begin && one.epoch !== epoch);
      const part = planned.slice(begin, end < 0 ? planned.length : end);
      const located = part.map(({ sample }) => sample.located);
      pixels.set(await pictures.trainPixels(located, epoch, signal), begin * bytes);
      begin += part.length;
    }
    return pixels;
  }

  #learningRate(step: number): number {
    const { lr, warmupSteps, steps } = this.#recipe;
    return learningRate(step, steps, { lr, warmupSteps, schedule: 'cosine' });
  }

  /** The phase of a step; another phase starts with a fresh optimiser. */
  #enterPhase(step: number): Phase {
    const { network, engine } = this.#modules;
    const headOnly = step < this.#recipe.headSteps;
    const trained = network.parameters.flatMap(({ name }, i) =>
      this.rules[i]!.frozen || (headOnly && !name.startsWith('head.')) ? [] : [i],
    );
    if (this.#phase !== undefined && this.#phase.trained.length === trained.length) return this.#phase;
    this.#phase?.optimizer.dispose();
    let length = 0;
    const offsets = trained.map((index) => {
      length += network.parameters[index]!.variable.size;
      return length - network.parameters[index]!.variable.size;
    });
    const pick = <T>(of: (rule: ParameterRule) => T) => trained.map((index) => of(this.rules[index]!));
    const optimizer = newOptimizer(
      engine,
      { name: 'adamw', beta1: 0.9, beta2: 0.999, eps: 1e-8 },
      {
        parameters: trained.map((index) => network.parameters[index]!.variable),
        offsets,
        weightDecays: pick(({ weightDecay }) => weightDecay),
        lrScales: pick(({ lrScale }) => lrScale),
        adapted: pick(({ adapted }) => adapted),
      },
    );
    this.#phase = { trained, offsets, gradient: new Float32Array(length), optimizer };
    return this.#phase;
  }

  /** Writes the gradient of the batch's summed loss; returns that sum. */
  #gradient(phase: Phase, pixels: Uint8Array, planned: readonly PlannedSample[]): number {
    const { engine, network } = this.#modules;
    const { mean, std, vision } = network.source;
    const { precision } = network;
    const side = vision.imageSize;
    const mixing = this.#mixing(planned);
    const x_BHWC = tf.tidy(() => {
      const x = pixelsToTensor(pixels, [planned.length, side, side, 3], { mean, std, precision });
      return mixing === undefined ? x : mixed(x, mixing);
    });
    const recording = recordForward(() => [network.logits(x_BHWC, { training: this.#followsStatistics })]);
    try {
      if (this.#followsStatistics) network.statistics.read(this.#laneStatistics);
      const { dLogits_RK, lossSum } = softmaxLoss(engine, recording.outputs[0]!, this.#targets(planned, mixing));
      try {
        phase.gradient.fill(0);
        const variables = phase.trained.map((index) => network.parameters[index]!.variable);
        recording.backward([dLogits_RK], variables, (i, gradient) => {
          const begin = phase.offsets[i]!;
          engine.readInto(gradient, phase.gradient.subarray(begin, begin + gradient.size));
        });
      } finally {
        dLogits_RK.dispose();
      }
      return lossSum;
    } finally {
      recording.dispose();
      x_BHWC.dispose();
    }
  }

  #mixing(planned: readonly PlannedSample[]): Mixing | undefined {
    const { mixup } = this.#recipe;
    return mixup > 0
      ? laneMixing(
          Uint32Array.from(planned, ({ seed }) => seed),
          mixup,
        )
      : undefined;
  }

  #targets(planned: readonly PlannedSample[], mixing: Mixing | undefined): Tensor2D {
    const labels = Int32Array.from(planned, ({ sample }) => sample.label);
    return tf.tidy(() => {
      const target_BK = smoothedTargets(labels, this.#modules.classes, this.#recipe.labelSmoothing);
      return mixing === undefined ? target_BK : (mixed(target_BK, mixing) as Tensor2D);
    });
  }
}
