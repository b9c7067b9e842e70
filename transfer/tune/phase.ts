import { type Engine, newOptimizer, type Optimizer } from '../../engine/index.ts';
import type { HostTensor } from '../../models/formats/safetensors.ts';
import type { NamedVariable } from '../../models/named-variables.ts';
import type { ParameterRule } from '../../models/parameter-rules.ts';
import type { TuneRecipe } from './tune-recipe.ts';

/** A parameter with how it is trained. */
export interface RuledParameter extends NamedVariable {
  readonly rule: ParameterRule;
}

/** The parameters that are trained at the same time, with an optimiser of their own. Close with `dispose`. */
export class Phase {
  readonly parameters: readonly RuledParameter[];
  /** Of all parameters, one behind the other. */
  readonly gradient: Float32Array;
  readonly optimizer: Optimizer;
  readonly #engine: Engine;
  readonly #offsets: readonly number[];

  constructor(parameters: readonly RuledParameter[], recipe: Pick<TuneRecipe, 'optimizer'>, engine: Engine) {
    this.parameters = parameters;
    this.#engine = engine;
    let length = 0;
    this.#offsets = parameters.map(({ variable }) => {
      length += variable.size;
      return length - variable.size;
    });
    this.gradient = new Float32Array(length);
    const spec =
      recipe.optimizer === 'sgd'
        ? ({ name: 'sgd', momentum: 0.9, nesterov: true } as const)
        : ({ name: 'adamw', beta1: 0.9, beta2: 0.999, eps: 1e-8 } as const);
    this.optimizer = newOptimizer(engine, spec, {
      parameters: parameters.map(({ variable }) => variable),
      offsets: this.#offsets,
      weightDecays: parameters.map(({ rule }) => rule.weightDecay),
      lrScales: parameters.map(({ rule }) => rule.lrScale),
      adapted: parameters.map(({ rule }) => rule.adapted),
    });
  }

  gradientOf(index: number): Float32Array {
    const begin = this.#offsets[index]!;
    return this.gradient.subarray(begin, begin + this.parameters[index]!.variable.size);
  }

  /** Host copies of the optimiser's slots, by slot and parameter. */
  slots(): Map<string, HostTensor> {
    const tensors = new Map<string, HostTensor>();
    for (const slot of this.optimizer.slots) {
      this.parameters.forEach(({ name, shape, variable }, i) => {
        const values = new Float32Array(variable.size);
        this.#engine.readInto(slot.tensors[i]!, values);
        tensors.set(`${slot.name}/${name}`, { shape, values });
      });
    }
    return tensors;
  }

  restore(stepCount: number, tensors: ReadonlyMap<string, HostTensor>): void {
    for (const slot of this.optimizer.slots) {
      this.parameters.forEach(({ name }, i) => {
        const stored = tensors.get(`${slot.name}/${name}`);
        if (stored !== undefined) this.#engine.writeFrom(slot.tensors[i]!, stored.values);
      });
    }
    this.optimizer.stepCount = stepCount;
  }

  dispose(): void {
    this.optimizer.dispose();
  }
}
