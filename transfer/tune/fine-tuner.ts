import { throwIfAborted } from '../../common/errors.ts';
import { type Engine, pixelsToTensor, recordForward, type Tensor, type Tensor2D, tf } from '../../engine/index.ts';
import type { HostTensor } from '../../models/formats/safetensors.ts';
import { assignAll, type NamedVariable, readTensors } from '../../models/named-variables.ts';
import { laneMixing, type Mixing, mixed } from '../../worker/objectives/mixup.ts';
import { smoothedTargets, softmaxLoss } from '../../worker/objectives/softmax-loss.ts';
import type { LabelledSample } from '../data/labelled-set.ts';
import type { PictureSample, PictureSource } from '../data/picture-source.ts';
import type { TransferNetwork } from '../network.ts';
import type { AlignedTarget } from './alignment.ts';
import { BatchPlan, type PlannedSample } from './batch-plan.ts';
import { tuneLearningRate } from './learning-rate.ts';
import { Phase, type RuledParameter } from './phase.ts';
import { plannedViews } from './planned-views.ts';
import type { TuneRecipe } from './tune-recipe.ts';
import { ruledParameters } from './tune-rules.ts';

export interface FineTunerModules {
  readonly engine: Engine;
  readonly network: TransferNetwork;
  readonly pictures: PictureSource;
  readonly train: readonly LabelledSample[];
  /** K: the head's outputs. */
  readonly classes: number;
  /** Pictures without labels whose features are drawn to those of the labelled ones: a batch of them in every step. */
  readonly target?: AlignedTarget | undefined;
}

export interface TunedStep {
  readonly step: number;
  /** Mean cross-entropy with the smoothed targets, before the update. */
  readonly loss: number;
  readonly learningRate: number;
  readonly gradientNorm: number;
  /** What the alignment measured. */
  readonly measures: Readonly<Record<string, number>>;
}

/** Trained parameters and the optimiser's slots: with them the next step has the bits it would have had. */
export interface TunerState {
  readonly step: number;
  readonly optimizerStep: number;
  readonly tensors: ReadonlyMap<string, HostTensor>;
}

/** A step's pictures: uint8 [B, side, side, 3]. */
interface StepPixels {
  readonly source: Uint8Array;
  readonly target?: Uint8Array;
}

/**
 * Trains a network step by step: gradient clipping, what is frozen is never written and costs no gradient. A step is a function of the recipe, the
 * samples and the state alone. Close with `dispose`; network and alignment stay the caller's.
 */
export class FineTuner {
  readonly parameters: readonly RuledParameter[];
  /** Names of what training changes: parameters that are not frozen, statistics that follow. */
  readonly changing: ReadonlySet<string>;
  readonly #recipe: TuneRecipe;
  readonly #modules: FineTunerModules;
  readonly #plan: BatchPlan<LabelledSample>;
  readonly #targetPlan: BatchPlan<PictureSample> | undefined;
  /** Everything with a state of its own, whether it changes or not. */
  readonly #variables: readonly NamedVariable[];
  /** Of the last batch. */
  readonly #laneStatistics: Float32Array;
  #step = 0;
  #phase: Phase | undefined;

  constructor(recipe: TuneRecipe, modules: FineTunerModules) {
    this.#recipe = recipe;
    this.#modules = modules;
    const { network, target } = modules;
    this.parameters = ruledParameters(network, recipe, target?.alignment);
    const open = this.parameters.filter(({ rule }) => !rule.frozen);
    const followed = [...(this.#followsStatistics ? network.buffers : []), ...(target?.alignment.buffers ?? [])];
    this.changing = new Set([...open, ...followed].map(({ name }) => name));
    this.#variables = [...this.parameters, ...network.buffers, ...(target?.alignment.buffers ?? [])];
    this.#laneStatistics = new Float32Array(network.statistics.length);
    this.#plan = new BatchPlan(modules.train, recipe);
    this.#targetPlan = target && new BatchPlan(target.samples, { ...recipe, stream: 'target' });
  }

  /** Steps taken. */
  get stepsTaken(): number {
    return this.#step;
  }

  async step(signal?: AbortSignal): Promise<TunedStep> {
    throwIfAborted(signal);
    const { engine, network, pictures, target } = this.#modules;
    const step = this.#step;
    const phase = this.#enterPhase(step);
    const planned = this.#plan.batchOf(step);
    const pixels: StepPixels = {
      source: await plannedViews(planned, pictures, signal),
      ...(target ? { target: await plannedViews(this.#targetPlan!.batchOf(step), target.pictures, signal) } : {}),
    };
    const loss = this.#gradient(phase, pixels, planned);
    const gradientNorm = Math.sqrt(engine.sumOfSquares(phase.gradient)) / planned.length;
    const lr = tuneLearningRate({ step, steps: this.#recipe.steps }, this.#recipe);
    const clip = Math.min(1, this.#recipe.clipNorm / Math.max(gradientNorm, Number.MIN_VALUE));
    phase.optimizer.step({ gradient: phase.gradient, gradientScale: clip / planned.length, lr });
    if (this.#followsStatistics) network.statistics.apply(this.#laneStatistics);
    const measures = target?.alignment.finishStep() ?? {};
    this.#step = step + 1;
    return { step, loss: loss / planned.length, learningRate: lr, gradientNorm, measures };
  }

  /** Host copies of what training changes. */
  state(): TunerState {
    const phase = this.#enterPhase(this.#step);
    // Also what an earlier phase trained.
    const tensors = readTensors(this.#variables.filter(({ name }) => this.changing.has(name)));
    for (const [name, tensor] of phase.slots()) tensors.set(name, tensor);
    return { step: this.#step, optimizerStep: phase.optimizer.stepCount, tensors };
  }

  /** Goes on from a state of the same recipe and network. */
  restore({ step, optimizerStep, tensors }: TunerState): void {
    const some = this.#variables.filter(({ name }) => this.changing.has(name) && tensors.has(name));
    assignAll(some, new Map(some.map(({ name }) => [name, tensors.get(name)!.values])));
    this.dispose();
    this.#enterPhase(step).restore(optimizerStep, tensors);
    this.#step = step;
  }

  get #followsStatistics(): boolean {
    return this.#recipe.batchNorm === 'batch' && this.#modules.network.statistics.length > 0;
  }

  dispose(): void {
    this.#phase?.dispose();
    this.#phase = undefined;
  }

  /** The phase of a step; another phase starts with a fresh optimiser. Where the head is alone, an alignment learns beside it. */
  #enterPhase(step: number): Phase {
    const headOnly = step < this.#recipe.headSteps;
    const trained = this.parameters.filter(
      ({ name, rule }) => !rule.frozen && (!headOnly || /^(head|domain)\./.test(name)),
    );
    if (this.#phase !== undefined && this.#phase.parameters.length === trained.length) return this.#phase;
    this.#phase?.dispose();
    this.#phase = new Phase(trained, this.#recipe, this.#modules.engine);
    return this.#phase;
  }

  /** Writes the gradient of the batch's summed loss, alignment included; returns the sum of the cross-entropies. */
  #gradient(phase: Phase, pixels: StepPixels, planned: readonly PlannedSample<LabelledSample>[]): number {
    const { engine, network, target } = this.#modules;
    const mixing = this.#mixing(planned);
    const x_BHWC = this.#inputs(pixels, mixing);
    // Otherwise those of earlier steps would count as this one's.
    network.statistics.begin();
    const recording = recordForward(() => this.#outputs(x_BHWC, planned.length));
    try {
      if (this.#followsStatistics) network.statistics.read(this.#laneStatistics);
      const { dLogits_RK, lossSum } = softmaxLoss(engine, recording.outputs[0]!, this.#targets(planned, mixing));
      // The gradient is one of sums: a mean counts as many times as the batch has pictures.
      const seeds = [dLogits_RK, ...(target ? [tf.scalar(target.alignment.weight * planned.length)] : [])];
      try {
        phase.gradient.fill(0);
        const variables = phase.parameters.map(({ variable }) => variable);
        recording.backward(seeds, variables, (i, gradient) => engine.readInto(gradient, phase.gradientOf(i)));
      } finally {
        tf.dispose(seeds);
      }
      return lossSum;
    } finally {
      recording.dispose();
      x_BHWC.dispose();
    }
  }

  /** Normalised pixels: the labelled pictures, then those of the target. */
  #inputs({ source, target }: StepPixels, mixing: Mixing | undefined): Tensor {
    const { mean, std, vision } = this.#modules.network.source;
    const { precision } = this.#modules.network;
    const side = vision.imageSize;
    const tensorOf = (pixels: Uint8Array) =>
      pixelsToTensor(pixels, [pixels.length / (side ** 2 * 3), side, side, 3], { mean, std, precision });
    return tf.tidy(() => {
      const x_BHWC = tensorOf(source);
      const mixed_BHWC = mixing === undefined ? x_BHWC : mixed(x_BHWC, mixing);
      return target === undefined ? mixed_BHWC : tf.concat([mixed_BHWC, tensorOf(target)]);
    });
  }

  /** Logits of the labelled pictures; and the alignment's loss. */
  #outputs(x_BHWC: Tensor, labelled: number): Tensor[] {
    const { network, target } = this.#modules;
    const training = this.#followsStatistics;
    if (target === undefined) return [network.logits(x_BHWC, { training })];
    // Both domains in one forward: batch norms see them together, as in the authors' code.
    const features = network.features(x_BHWC, { training });
    const width = features.shape[1];
    const source_BF = tf.slice(features, [0, 0], [labelled, width]);
    const target_BF = tf.slice(features, [labelled, 0], [features.shape[0] - labelled, width]);
    const moment = { step: this.#step, steps: this.#recipe.steps };
    return [network.classify(source_BF), target.alignment.loss(source_BF, target_BF, moment)];
  }

  #mixing(planned: readonly PlannedSample<LabelledSample>[]): Mixing | undefined {
    const { mixup } = this.#recipe;
    return mixup > 0
      ? laneMixing(
          Uint32Array.from(planned, ({ seed }) => seed),
          mixup,
        )
      : undefined;
  }

  #targets(planned: readonly PlannedSample<LabelledSample>[], mixing: Mixing | undefined): Tensor2D {
    const labels = Int32Array.from(planned, ({ sample }) => sample.label);
    return tf.tidy(() => {
      const target_BK = smoothedTargets(labels, this.#modules.classes, this.#recipe.labelSmoothing);
      return mixing === undefined ? target_BK : (mixed(target_BK, mixing) as Tensor2D);
    });
  }
}
