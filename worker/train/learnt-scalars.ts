import { assert } from '../../common/errors.ts';
import type { Engine, tf } from '../../engine/index.ts';
import type { NamedVariable } from '../../models/named-variables.ts';
import type { LearntScalar } from '../objectives/objective.ts';

/** An objective's own scalars among the model's parameters. */
export class LearntScalars {
  /** Parameter index of each. */
  readonly indices: readonly number[];
  readonly #engine: Engine;
  readonly #scalars: readonly LearntScalar[];
  readonly #variables: readonly tf.Variable[];

  constructor(engine: Engine, scalars: readonly LearntScalar[], parameters: readonly NamedVariable[]) {
    this.#engine = engine;
    this.#scalars = scalars;
    this.indices = scalars.map((scalar) => {
      const index = parameters.findIndex((parameter) => parameter.name === scalar.name);
      assert(index >= 0, 'the model has the scalars of its objective', { name: scalar.name });
      return index;
    });
    this.#variables = this.indices.map((index) => parameters[index]!.variable);
  }

  read(): number[] {
    return this.#variables.map((variable) => {
      const value = new Float32Array(1);
      this.#engine.readInto(variable, value);
      return value[0]!;
    });
  }

  /** A lane's gradients of them, by parameter index. */
  gradients(dScalars: readonly number[]): Map<number, number> {
    return new Map(this.indices.map((index, i) => [index, dScalars[i]!]));
  }

  /** Into the objective's bounds, after each update. */
  clamp(): void {
    this.read().forEach((value, i) => {
      const { min, max } = this.#scalars[i]!;
      const clamped = Math.min(Math.max(value, min), max);
      if (clamped !== value) this.#engine.writeFrom(this.#variables[i]!, new Float32Array([clamped]));
    });
  }
}
