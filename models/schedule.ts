import type { OptimizerConfig } from '../common/config/run-config.ts';

type ScheduleConfig = Pick<OptimizerConfig, 'lr' | 'warmupSteps' | 'schedule'> &
  Partial<Pick<OptimizerConfig, 'cooldownSteps' | 'timescaleSteps' | 'milestones' | 'milestoneFactor'>>;

const TIMESCALE_STEPS = 10_000;
const MILESTONE_FACTOR = 0.1;

/**
 * Learning rate of update `step` (0 for the first) out of `steps`: linear warm-up lr·(step+1)/warmupSteps as open_clip's `scheduler.py`, then the
 * schedule, then the cooldown. Pure, so a resumed run needs no state.
 */
export function learningRate(step: number, steps: number, config: ScheduleConfig): number {
  const { lr, warmupSteps, cooldownSteps } = config;
  if (step < warmupSteps) return (lr * (step + 1)) / warmupSteps;
  const scheduled = afterWarmup(step, steps, config);
  if (cooldownSteps === undefined) return scheduled;
  // open_clip's const-cooldown with power 1: the first step of the cooldown still has the whole rate.
  return scheduled * Math.min(1, Math.max(0, steps - step) / cooldownSteps);
}

function afterWarmup(step: number, steps: number, config: ScheduleConfig): number {
  const { lr, warmupSteps, schedule } = config;
  const progress = step < steps ? (step - warmupSteps) / (steps - warmupSteps) : 1;
  switch (schedule) {
    case 'cosine':
      return 0.5 * (1 + Math.cos(Math.PI * progress)) * lr;
    case 'constant':
      return lr;
    case 'linear':
      return lr * (1 - progress);
    case 'rsqrt':
      // big_vision `utils.py`: continuous with the warm-up, and without an end that must be known.
      return lr / Math.sqrt(1 + (step - warmupSteps) / (config.timescaleSteps ?? TIMESCALE_STEPS));
    case 'step': {
      const passed = (config.milestones ?? []).filter((milestone) => step >= milestone).length;
      return lr * (config.milestoneFactor ?? MILESTONE_FACTOR) ** passed;
    }
  }
}
