import type { OptimizerConfig } from '../common/config/run-config.ts';

/**
 * Learning rate of update `step` (0 for the first) out of `steps`, as open_clip's `scheduler.py`: linear warm-up
 * lr·(step+1)/warmupSteps, then half a cosine to 0 (`cosine`) or lr as it is (`constant`). Pure, so a resumed run needs no state.
 */
export function learningRate(
  step: number,
  steps: number,
  { lr, warmupSteps, schedule }: Pick<OptimizerConfig, 'lr' | 'warmupSteps' | 'schedule'>,
): number {
  if (step < warmupSteps) return (lr * (step + 1)) / warmupSteps;
  if (schedule === 'constant') return lr;
  const progress = step < steps ? (step - warmupSteps) / (steps - warmupSteps) : 1;
  return 0.5 * (1 + Math.cos(Math.PI * progress)) * lr;
}
