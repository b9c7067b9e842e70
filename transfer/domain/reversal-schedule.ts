import type { TuneMoment } from '../tune/alignment.ts';

export interface ReversalSchedule {
  /** How fast it rises. */
  readonly gamma: number;
  /** Where it ends. */
  readonly max: number;
  /** Steps over which p goes from 0 to 1. Default: all of the training. */
  readonly steps?: number | undefined;
}

/**
 * λ_p = max·(2 / (1 + exp(−γ·p)) − 1) (Ganin et al. 2016, §5.2.2: γ = 10, p the share of the training that is done): the discriminator learns
 * before its gradient, noise at first, reaches the features. Transfer-Learn-Library's is γ = 1 over 1,000 steps, rising on behind them.
 */
export function reversalCoefficient({ step, steps }: TuneMoment, schedule: ReversalSchedule): number {
  const p = step / (schedule.steps ?? steps);
  return schedule.max * (2 / (1 + Math.exp(-schedule.gamma * p)) - 1);
}
