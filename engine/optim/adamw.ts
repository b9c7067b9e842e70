import type { Engine } from '../engine.ts';
import { Optimizer, type OptimizerParameters } from './optimizer.ts';
import type { UpdateTarget } from './update-rule.ts';

export interface AdamWOptions extends OptimizerParameters {
  readonly beta1: number;
  readonly beta2: number;
  readonly eps: number;
}

/** AdamW with decoupled weight decay (Loshchilov & Hutter 2019, Algorithm 2). */
export class AdamW extends Optimizer {
  static readonly slotNames = ['firstMoments', 'secondMoments'] as const;
  readonly #options: AdamWOptions;

  constructor(engine: Engine, options: AdamWOptions) {
    super(engine, options, AdamW.slotNames);
    this.#options = options;
  }

  protected apply(target: UpdateTarget, rates: readonly number[]): void {
    const { weightDecays, stepCount: step } = this;
    const { beta1, beta2, eps } = this.#options;
    this.engine.applyRule({ kind: 'adamW', beta1, beta2, eps, step, rates, weightDecays }, target);
  }
}
