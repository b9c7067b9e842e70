import type { Engine } from '../engine.ts';
import { Optimizer, type OptimizerParameters } from './optimizer.ts';
import type { GradientNorms, UpdateTarget } from './update-rule.ts';

/**
 * Three optimisers are called LARS; they do not agree.
 * `simclr` (google-research/simclr `lars_optimizer.py`, classic momentum): ratio η‖p‖/‖g + λp‖, the learning rate *inside* the momentum.
 * `moco-v3` (facebookresearch/moco-v3 and mae): the same ratio, the learning rate outside; what has one dimension is neither adapted nor decayed.
 * `larc` (lightly, solo-learn, timm): ratio η‖p‖/(‖g‖ + λ‖p‖ + ε), the learning rate outside, adapted only where λ ≠ 0.
 */
export type LarsVariant = 'simclr' | 'moco-v3' | 'larc';

export interface LarsOptions extends OptimizerParameters {
  readonly variant: LarsVariant;
  readonly momentum: number;
  readonly nesterov: boolean;
  /** η. */
  readonly trustCoefficient: number;
  /** Per parameter, for `simclr`: false for gains and biases, which the original leaves alone. */
  readonly adapted: readonly boolean[];
}

/** `larc`'s ε. */
const LARC_EPS = 1e-8;

/** Layer-wise adaptive rate scaling (You, Gitman & Ginsburg 2017, eq. 6): momentum on gradients scaled by a trust ratio per layer. */
export class Lars extends Optimizer {
  static readonly slotNames = ['momentum'] as const;
  readonly #options: LarsOptions;

  constructor(engine: Engine, options: LarsOptions) {
    super(engine, options, Lars.slotNames);
    this.#options = options;
  }

  protected apply(target: UpdateTarget, rates: readonly number[]): void {
    const { variant, momentum, nesterov } = this.#options;
    const weightDecays = this.weightDecays.map((decay, index) =>
      variant === 'moco-v3' && !this.#isAdapted(index) ? 0 : decay,
    );
    const norms = this.engine.gradientNorms(weightDecays, target);
    const ratios = norms.map((norm, index) => (this.#isAdapted(index) ? this.#ratio(norm, weightDecays[index]!) : 1));
    const rule = { kind: 'momentum', momentum, nesterov, weightDecays } as const;
    if (variant === 'simclr') {
      // v ← μv + lr·ratio·(g + λp); p ← p − v: gradients already in v keep the rate they came with.
      const trusts = ratios.map((ratio, index) => ratio * rates[index]!);
      this.engine.applyRule({ ...rule, trusts, rates: rates.map(() => 1) }, target);
    } else {
      // v ← μv + ratio·(g + λp); p ← p − lr·v.
      this.engine.applyRule({ ...rule, trusts: ratios, rates }, target);
    }
  }

  #isAdapted(index: number): boolean {
    switch (this.#options.variant) {
      case 'simclr':
        return this.#options.adapted[index]!;
      case 'moco-v3':
        return this.parameters[index]!.rank > 1;
      case 'larc':
        return this.weightDecays[index] !== 0;
    }
  }

  /** 1 where a norm is zero: nothing is known of the layer then. */
  #ratio({ parameter, gradient, decayed }: GradientNorms, weightDecay: number): number {
    const { variant, trustCoefficient } = this.#options;
    if (variant === 'larc') {
      if (parameter === 0 || gradient === 0) return 1;
      return (trustCoefficient * parameter) / (gradient + weightDecay * parameter + LARC_EPS);
    }
    return parameter > 0 && decayed > 0 ? (trustCoefficient * parameter) / decayed : 1;
  }
}
