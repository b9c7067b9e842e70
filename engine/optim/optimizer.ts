import { CoveyError } from '../../common/errors.ts';
import type { Engine } from '../engine.ts';
import { dispose, keep, type Tensor, tidy, type Variable, zeros } from '../tf.ts';
import type { UpdateTarget } from './update-rule.ts';

/** What is optimised, and each parameter's own constants. */
export interface OptimizerParameters {
  readonly parameters: readonly Variable[];
  /** Per parameter. */
  readonly weightDecays: readonly number[];
  /** Multiplies the learning rate per parameter: 1 by default. */
  readonly lrScales?: readonly number[];
  /** Where each parameter's gradient begins in the flat one. Default: one behind the other. */
  readonly offsets?: readonly number[];
}

/** One tensor per parameter, in its shape: what the optimiser remembers between updates. */
export interface OptimizerSlot {
  /** Also the name of its part of a checkpoint. */
  readonly name: string;
  readonly tensors: readonly Tensor[];
}

export interface OptimizerUpdate {
  /** All parameters' gradient sums (fp32, may be shared memory), parameter i's at `offsets[i]`; or one tensor a parameter, which stay the caller's. */
  readonly gradient: Float32Array | readonly Tensor[];
  /** Multiplies the gradient as it is read: 1/globalBatch × clip factor. */
  readonly gradientScale: number;
  readonly lr: number;
}

/**
 * The seam of the optimisers. Each owns its slots; the parameters stay the caller's and are updated in place. With the slots and `stepCount`
 * restored, the next update has the bits it would have had.
 */
export abstract class Optimizer {
  readonly slots: readonly OptimizerSlot[];
  /** Updates applied so far; set it when slots are restored. */
  stepCount = 0;
  protected readonly engine: Engine;
  protected readonly parameters: readonly Variable[];
  protected readonly weightDecays: readonly number[];
  readonly #lrScales: readonly number[];
  readonly #offsets: readonly number[];

  /** @throws INVALID_ARGUMENT where a list does not have one number per parameter */
  protected constructor(engine: Engine, options: OptimizerParameters, slotNames: readonly string[]) {
    const { parameters, weightDecays } = options;
    const lrScales = options.lrScales ?? parameters.map(() => 1);
    const offsets = options.offsets ?? consecutive(parameters);
    if ([weightDecays, lrScales, offsets].some((list) => list.length !== parameters.length)) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        'Cannot make the optimiser: one weight decay, lr scale and offset per parameter are needed',
        {
          fields: {
            parameters: parameters.length,
            weightDecays: weightDecays.length,
            lrScales: lrScales.length,
            offsets: offsets.length,
          },
        },
      );
    }
    this.engine = engine;
    this.parameters = parameters;
    this.weightDecays = weightDecays;
    this.#lrScales = lrScales;
    this.#offsets = offsets;
    this.slots = tidy(() =>
      slotNames.map((name) => ({ name, tensors: parameters.map((parameter) => keep(zeros(parameter.shape))) })),
    );
  }

  /** One update. Must not run while a recording over these parameters still awaits its backward: it is in place. */
  step({ gradient, gradientScale, lr }: OptimizerUpdate): void {
    this.stepCount++;
    const { parameters } = this;
    const slots = this.slots.map((slot) => slot.tensors);
    const rates = this.#lrScales.map((scale) => lr * scale);
    const isReady = gradient instanceof Float32Array || this.engine.device !== 'cpu';
    this.apply(
      isReady
        ? { parameters, slots, gradient, offsets: this.#offsets, gradientScale }
        : { parameters, slots, ...this.#flattened(gradient), gradientScale },
      rates,
    );
  }

  #flattened(gradients: readonly Tensor[]): { readonly gradient: Float32Array; readonly offsets: readonly number[] } {
    const offsets = consecutive(this.parameters);
    const gradient = new Float32Array(gradients.reduce((sum, { size }) => sum + size, 0));
    gradients.forEach((values, i) => {
      this.engine.readInto(values, gradient.subarray(offsets[i]!, offsets[i]! + values.size));
    });
    return { gradient, offsets };
  }

  /** Update number `stepCount`; `rates` are the learning rates per parameter. */
  protected abstract apply(target: UpdateTarget, rates: readonly number[]): void;

  dispose(): void {
    for (const { tensors } of this.slots) dispose([...tensors]);
  }
}

function consecutive(parameters: readonly Variable[]): number[] {
  let offset = 0;
  return parameters.map(({ size }) => {
    offset += size;
    return offset - size;
  });
}
