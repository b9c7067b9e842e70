import { assert } from '../../common/errors.ts';
import { type Precision, synchronisedBatchNorm, type Tensor1D, tf, type Variable } from '../../engine/index.ts';
import type { ParameterLookup } from '../clip/transformer.ts';
import type { NamedVariable, SharedVariables } from '../named-variables.ts';
import { type BatchNormLayer, batchNormLayer } from './batch-norm-layer.ts';
import type { LanesTogether } from './lanes-together.ts';

/** The share of a step's statistics in the running ones, as in PyTorch. */
const MOMENTUM = 0.1;
const RUNNING = /\.running_(mean|var)$/;

interface Slot {
  readonly name: string;
  /** What evaluation normalises by. */
  readonly running: Variable;
  /** What the lane that was encoded last was normalised by (the variance without bias, as running ones are). */
  readonly lane: Variable;
  readonly offset: number;
  readonly length: number;
  /** Whether another model moves the running values. */
  readonly isShared: boolean;
}

/**
 * The batch norms' statistics of one model. In training every lane is normalised by its own; they are read after the lane, averaged over
 * all lanes of the global batch by the trainer, and only then, with the weights' update, moved into the running ones. So the running
 * statistics are a function of the global batch, whoever holds which lanes, and a step that is computed again leaves no trace.
 *
 * Owns its scratch variables, not the buffers. Close with `dispose`.
 */
export class BatchStatistics {
  /** Floats per lane. */
  readonly length: number;
  /** What they are of, one behind another. */
  readonly entries: readonly { readonly name: string; readonly length: number }[];
  readonly #slots: readonly Slot[];
  readonly #byName: ReadonlyMap<string, Slot>;
  /** Forwards since the last `begin`. */
  #forwards = 0;

  /**
   * @param buffers those of the model; only running statistics are taken. @param scope unique in the thread
   * @param shared what other models made: this one meets statistics of it, too, but theirs are the running values to move
   */
  constructor(buffers: readonly NamedVariable[], scope: string, shared?: SharedVariables) {
    let offset = 0;
    this.#slots = buffers
      .filter(({ name }) => RUNNING.test(name))
      .map(({ name, variable, shape }) => {
        const length = shape[0]!;
        const zeros = tf.zeros([length]);
        const lane = tf.variable(zeros, false, `${scope}/lane/${name}`);
        zeros.dispose();
        const slot = { name, running: variable, lane, offset, length, isShared: shared?.has(name) ?? false };
        offset += length;
        return slot;
      });
    this.length = offset;
    this.entries = this.#slots.map(({ name, length }) => ({ name, length }));
    this.#byName = new Map(this.#slots.map((slot) => [slot.name, slot]));
  }

  /** How one forward normalises: in training each tensor by its own statistics, otherwise by the running ones. */
  layer(parameter: ParameterLookup, { training }: { readonly training: boolean }): BatchNormLayer {
    if (!training || this.length === 0) return batchNormLayer(parameter);
    // Several forwards of one lane count as their mean.
    const momentum = 1 / ++this.#forwards;
    return batchNormLayer(parameter, (name) => ({
      mean: this.#slot(`${name}.running_mean`).lane,
      variance: this.#slot(`${name}.running_var`).lane,
      momentum,
    }));
  }

  /** How lanes that are computed side by side normalise in training: all by the statistics of all lanes. */
  layerTogether({ lookups, exchange }: LanesTogether, precision: Precision): BatchNormLayer {
    this.#forwards++;
    return (xs, name, { activation, residuals } = {}) => {
      const { ys, mean, variance } = synchronisedBatchNorm(xs, {
        weights: lookups.map((lookup) => lookup<Tensor1D>(`${name}.weight`)),
        biases: lookups.map((lookup) => lookup<Tensor1D>(`${name}.bias`)),
        ...(residuals ? { residuals } : {}),
        ...(activation ? { activation } : {}),
        precision,
        exchange,
      });
      tf.tidy(() => {
        this.#slot(`${name}.running_mean`).lane.assign(tf.tensor1d(mean));
        this.#slot(`${name}.running_var`).lane.assign(tf.tensor1d(variance));
      });
      return ys;
    };
  }

  /** How many batch norms there are. */
  get norms(): number {
    return this.#slots.length / 2;
  }

  /** A lane begins: forwards before, such as those that only a backward needed, do not count. */
  begin(): void {
    this.#forwards = 0;
  }

  /** Statistics of the forwards in training since `begin`, which were one lane's. */
  read(out: Float32Array): void {
    assert(this.#forwards > 0, 'a lane is encoded before its statistics are read');
    const values = tf.tidy(() => tf.concat(this.#slots.map(({ lane }) => lane)).dataSync<'float32'>());
    out.set(values);
    // A share of 0 in the next forward would still let a NaN through.
    if (!values.every(Number.isFinite)) this.#reset();
  }

  /** running ← (1 − share)·running + share·mean, in float32 on every engine alike. @param share default PyTorch's 0.1 */
  apply(mean: Float32Array, share = MOMENTUM): void {
    tf.tidy(() => {
      const running = tf.concat(this.#slots.map((slot) => slot.running)).dataSync<'float32'>();
      const next = running.map((value, i) => (1 - share) * value + share * mean[i]!);
      for (const { running: variable, offset, length, isShared } of this.#slots) {
        if (!isShared) variable.assign(tf.tensor1d(next.slice(offset, offset + length)));
      }
    });
  }

  dispose(): void {
    for (const { lane } of this.#slots) lane.dispose();
  }

  #reset(): void {
    tf.tidy(() => {
      for (const { lane, length } of this.#slots) lane.assign(tf.zeros([length]));
    });
  }

  #slot(name: string): Slot {
    const slot = this.#byName.get(name);
    assert(slot !== undefined, 'every batch norm has running statistics', { name });
    return slot;
  }
}
