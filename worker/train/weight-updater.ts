import {
  type Engine,
  newOptimizer,
  type Optimizer,
  type OptimizerSpec,
  type OptimizerUpdate,
  type tf,
  WeightAverage,
} from '../../engine/index.ts';
import type { ParameterRule } from '../../models/parameter-rules.ts';
import type { FlatSlot } from './flat-layout.ts';
import { BUFFERS, EMA, type StateHeader, type StateView, WEIGHTS } from './state-layout.ts';

export interface WeightUpdaterOptions {
  readonly optimizer: OptimizerSpec;
  /** Per parameter. */
  readonly rules: readonly ParameterRule[];
  /** Average of the weights: every `everySteps` updates, or none. */
  readonly ema: { readonly decay: number; readonly everySteps: number } | undefined;
}

interface Modules {
  readonly engine: Engine;
  /** All of the model's, in the order of `rules`. */
  readonly variables: readonly tf.Variable[];
  readonly slots: readonly FlatSlot[];
  /** State of the model that no gradient changes. */
  readonly buffers: readonly tf.Variable[];
}

/**
 * The part of training that changes weights: the optimiser over the parameters that are not frozen, the average of all of them, and both,
 * with the model's buffers, as state that a checkpoint or a peer carries. Frozen parameters have no slots in memory (in the state theirs are zero) and are never written.
 */
export class WeightUpdater {
  /** Indices of the parameters that are not frozen: only these need a gradient. */
  readonly trainable: readonly number[];
  /** Names of the state's parts. */
  readonly sections: readonly string[];
  readonly #modules: Modules;
  readonly #optimizer: Optimizer;
  readonly #average: WeightAverage | undefined;
  readonly #averageEverySteps: number;

  constructor({ optimizer, rules, ema }: WeightUpdaterOptions, modules: Modules) {
    this.#modules = modules;
    const { engine, variables, slots } = modules;
    this.trainable = rules.flatMap(({ frozen }, index) => (frozen ? [] : [index]));
    const ofTrainable = <T>(pick: (index: number) => T): T[] => this.trainable.map(pick);
    this.#optimizer = newOptimizer(engine, optimizer, {
      parameters: ofTrainable((index) => variables[index]!),
      offsets: ofTrainable((index) => slots[index]!.offset),
      weightDecays: ofTrainable((index) => rules[index]!.weightDecay),
      lrScales: ofTrainable((index) => rules[index]!.lrScale),
      adapted: ofTrainable((index) => rules[index]!.adapted),
    });
    this.#average = ema ? new WeightAverage(engine, variables, ema.decay) : undefined;
    this.#averageEverySteps = ema?.everySteps ?? 1;
    this.sections = [
      WEIGHTS,
      ...this.#optimizer.slots.map(({ name }) => name),
      ...(ema ? [EMA] : []),
      ...(modules.buffers.length > 0 ? [BUFFERS] : []),
    ];
  }

  /** One optimiser update; see `Optimizer.step`. */
  step(update: OptimizerUpdate): void {
    this.#optimizer.step(update);
  }

  /** To be called after each update, when the weights are what the next step will use. */
  average(): void {
    if (this.#optimizer.stepCount % this.#averageEverySteps === 0) this.#average?.update();
  }

  exportState(view: StateView, header: Pick<StateHeader, 'step' | 'skippedSteps'>): void {
    const { engine } = this.#modules;
    for (const name of this.sections) {
      const flat = view.section(name);
      // What has no tensor is zero, whatever the block held before.
      if (name !== WEIGHTS && name !== EMA && name !== BUFFERS && this.trainable.length < this.#modules.slots.length)
        flat.fill(0);
      this.#each(name, (tensor, begin, end) => engine.readInto(tensor, flat.subarray(begin, end)));
    }
    view.writeHeader({ ...header, optimizerStep: this.#optimizer.stepCount });
  }

  /** Takes over weights, slots and average. @throws DATA_CORRUPT where the block is not a state of this training */
  importState(view: StateView): StateHeader {
    const { engine } = this.#modules;
    const header = view.readHeader();
    for (const name of this.sections) {
      const flat = view.section(name);
      this.#each(name, (tensor, begin, end) => engine.writeFrom(tensor, flat.subarray(begin, end)));
    }
    this.#optimizer.stepCount = header.optimizerStep;
    return header;
  }

  /** Each tensor of a section with its range. */
  #each(name: string, visit: (tensor: tf.Tensor, begin: number, end: number) => void): void {
    const { variables, slots, buffers } = this.#modules;
    if (name === BUFFERS) {
      let begin = 0;
      for (const buffer of buffers) {
        visit(buffer, begin, begin + buffer.size);
        begin += buffer.size;
      }
      return;
    }
    const slot = this.#optimizer.slots.find((one) => one.name === name);
    const all = name === WEIGHTS ? variables : this.#average?.tensors;
    slots.forEach(({ offset, length }, index) => {
      const tensor = slot ? slot.tensors[this.trainable.indexOf(index)] : all?.[index];
      if (tensor) visit(tensor, offset, offset + length);
    });
  }

  dispose(): void {
    this.#optimizer.dispose();
    this.#average?.dispose();
  }
}
