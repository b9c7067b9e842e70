import type { Engine } from '../engine.ts';
import { Optimizer, type OptimizerParameters } from './optimizer.ts';
import type { UpdateTarget } from './update-rule.ts';

export interface LionOptions extends OptimizerParameters {
  readonly beta1: number;
  readonly beta2: number;
}

/**
 * Lion (Chen et al. 2023, Algorithm 2): the sign of β₁m + (1−β₁)g, decoupled weight decay, and only then m ← β₂m + (1−β₂)g. Each element moves
 * by lr, so lr is 3 to 10 times smaller than AdamW's and the decay as much larger.
 */
export class Lion extends Optimizer {
  static readonly slotNames = ['momentum'] as const;
  readonly #options: LionOptions;

  constructor(engine: Engine, options: LionOptions) {
    super(engine, options, Lion.slotNames);
    this.#options = options;
  }

  protected apply(target: UpdateTarget, rates: readonly number[]): void {
    const { beta1, beta2 } = this.#options;
    this.engine.applyRule({ kind: 'lion', beta1, beta2, rates, weightDecays: this.weightDecays }, target);
  }
}
