import type { Engine } from '../engine.ts';
import { dispose, keep, type Tensor, tidy, type Variable, zeros } from '../tf.ts';

/**
 * An exponential moving average of weights (Polyak averaging; `ModelEmaV2` of timm without warm-up): e ← e + (1 − decay)·(p − e), which keeps what
 * does not move exactly. Begins as the weights are. Owns its tensors.
 */
export class WeightAverage {
  readonly tensors: readonly Tensor[];
  readonly #engine: Engine;
  readonly #variables: readonly Variable[];
  readonly #weight: number;

  constructor(engine: Engine, variables: readonly Variable[], decay: number) {
    this.#engine = engine;
    this.#variables = variables;
    this.#weight = 1 - decay;
    // Storage of its own: a clone would share the variable's, which is written in place.
    this.tensors = tidy(() => variables.map((variable) => keep(zeros(variable.shape))));
    engine.averageInto(this.tensors, variables, 1);
  }

  /** Takes the weights as they are now into the average. */
  update(): void {
    this.#engine.averageInto(this.tensors, this.#variables, this.#weight);
  }

  dispose(): void {
    dispose([...this.tensors]);
  }
}
