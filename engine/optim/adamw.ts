import { CoveyError } from '../../common/errors.ts';
import type { AdamWUpdate, Engine } from '../engine.ts';
import { dispose, keep, type Tensor, type Variable, zeros } from '../tf.ts';

export interface AdamWOptions {
  readonly parameters: readonly Variable[];
  /** Per parameter. */
  readonly weightDecays: readonly number[];
  /** Multiplies the learning rate per parameter: 1 by default, 0 = frozen. */
  readonly lrScales?: readonly number[];
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
}

/**
 * AdamW with decoupled weight decay (Loshchilov & Hutter 2019, Algorithm 2). Owns its moments; the parameters stay the caller's and
 * are updated in place.
 */
export class AdamW {
  /** Moving averages of the gradient and its square, in parameter order. */
  readonly firstMoments: readonly Tensor[];
  readonly secondMoments: readonly Tensor[];
  /** Updates applied so far; set it when moments are restored. */
  stepCount = 0;
  readonly #engine: Engine;
  readonly #options: Required<AdamWOptions>;

  constructor(engine: Engine, options: AdamWOptions) {
    const { parameters, weightDecays } = options;
    const lrScales = options.lrScales ?? parameters.map(() => 1);
    if (weightDecays.length !== parameters.length || lrScales.length !== parameters.length) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        'Cannot make the optimiser: one weight decay and lr scale per parameter are needed',
        {
          fields: { parameters: parameters.length, weightDecays: weightDecays.length, lrScales: lrScales.length },
        },
      );
    }
    this.#engine = engine;
    this.#options = { ...options, lrScales };
    this.firstMoments = parameters.map((parameter) => keep(zeros(parameter.shape)));
    this.secondMoments = parameters.map((parameter) => keep(zeros(parameter.shape)));
  }

  /**
   * One update. Must not run while a recording over these parameters still awaits its backward: the update is in place.
   *
   * @param update.gradient all parameters' gradient sums, concatenated in order (fp32), or one tensor a parameter, which stay the caller's
   * @param update.gradientScale multiplies the gradient as it is read: 1/globalBatch × clip factor
   */
  step(update: Pick<AdamWUpdate, 'gradient' | 'gradientScale' | 'lr'>): void {
    this.stepCount++;
    const { gradient } = update;
    const isFlat = gradient instanceof Float32Array || this.#engine.device !== 'cpu';
    this.#engine.adamW({
      ...this.#options,
      ...update,
      gradient: isFlat ? gradient : this.#flattened(gradient),
      firstMoments: this.firstMoments,
      secondMoments: this.secondMoments,
      step: this.stepCount,
    });
  }

  #flattened(gradients: readonly Tensor[]): Float32Array {
    const flat = new Float32Array(gradients.reduce((sum, gradient) => sum + gradient.size, 0));
    let offset = 0;
    for (const gradient of gradients) {
      this.#engine.readInto(gradient, flat.subarray(offset, offset + gradient.size));
      offset += gradient.size;
    }
    return flat;
  }

  dispose(): void {
    dispose([...this.firstMoments, ...this.secondMoments]);
  }
}
