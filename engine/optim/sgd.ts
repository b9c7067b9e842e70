import type { Engine } from '../engine.ts';
import { Optimizer, type OptimizerParameters } from './optimizer.ts';
import type { UpdateTarget } from './update-rule.ts';

export interface SgdOptions extends OptimizerParameters {
  readonly momentum: number;
  readonly nesterov: boolean;
}

/**
 * SGD with momentum as PyTorch writes it: weight decay is part of the gradient, m ← μm + g, p ← p − lr·m, or with Nesterov's look-ahead
 * p ← p − lr·(g + μm) (Sutskever et al. 2013, in the form of Bengio et al. 2013, eq. 7). No dampening.
 */
export class Sgd extends Optimizer {
  static readonly slotNames = ['momentum'] as const;
  readonly #options: SgdOptions;

  constructor(engine: Engine, options: SgdOptions) {
    super(engine, options, Sgd.slotNames);
    this.#options = options;
  }

  protected apply(target: UpdateTarget, rates: readonly number[]): void {
    const { momentum, nesterov } = this.#options;
    const { weightDecays } = this;
    const trusts = rates.map(() => 1);
    this.engine.applyRule({ kind: 'momentum', momentum, nesterov, trusts, rates, weightDecays }, target);
  }
}
