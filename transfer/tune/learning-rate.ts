import { learningRate } from '../../models/schedule.ts';
import type { TuneMoment } from './alignment.ts';
import type { TuneRecipe } from './tune-recipe.ts';

/** α and β of μ_p = μ₀ / (1 + α·p)^β, p from 0 to 1 over the training (Ganin et al. 2016, §5.2.2). */
const DANN_ALPHA = 10;
const DANN_BETA = 0.75;

/** Highest rate of a step: what is new has it whole. Pure, so an interrupted training needs no state. */
export function tuneLearningRate(
  { step, steps }: TuneMoment,
  { lr, warmupSteps, schedule }: Pick<TuneRecipe, 'lr' | 'warmupSteps' | 'schedule'>,
): number {
  if (schedule === 'cosine') return learningRate(step, steps, { lr, warmupSteps, schedule });
  const annealed = lr / (1 + (DANN_ALPHA * step) / steps) ** DANN_BETA;
  return step < warmupSteps ? (annealed * (step + 1)) / warmupSteps : annealed;
}
