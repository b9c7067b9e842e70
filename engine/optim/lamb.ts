import type { Engine } from '../engine.ts';
import { Optimizer, type OptimizerParameters } from './optimizer.ts';
import type { UpdateTarget } from './update-rule.ts';

export interface LambOptions extends OptimizerParameters {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
  /** m̂ and v̂ as in the paper; false as in its first published code. */
  readonly biasCorrection: boolean;
  /** Per parameter: has it a trust ratio? The authors' code leaves gains and biases at 1, as it leaves them undecayed. */
  readonly adapted: readonly boolean[];
}

/**
 * LAMB (You et al. 2020, Algorithm 2) with φ the identity: r = m̂/(√v̂ + ε), u = r + λp, p ← p − lr·(‖p‖/‖u‖)·u. The ratio is 1 where a norm
 * is zero.
 */
export class Lamb extends Optimizer {
  static readonly slotNames = ['firstMoments', 'secondMoments'] as const;
  readonly #options: LambOptions;

  constructor(engine: Engine, options: LambOptions) {
    super(engine, options, Lamb.slotNames);
    this.#options = options;
  }

  protected apply(target: UpdateTarget, rates: readonly number[]): void {
    const { beta1, beta2, eps, biasCorrection, adapted } = this.#options;
    const { weightDecays, stepCount: step } = this;
    const constants = { beta1, beta2, eps, step, biasCorrection, weightDecays };
    const norms = this.engine.lambMoments(constants, target);
    const scaled = rates.map((rate, index) => {
      const { parameter, update } = norms[index]!;
      return adapted[index] && parameter > 0 && update > 0 ? rate * (parameter / update) : rate;
    });
    this.engine.applyRule({ kind: 'lamb', ...constants, rates: scaled }, target);
  }
}
