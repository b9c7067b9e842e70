import path from 'node:path';
import { readProgress, writeProgress } from '../../transfer/tune/progress-file.ts';
import type { TuneHooks, TuneProgress, TuneResult } from '../../transfer/tune/tune.ts';
import type { TuneRecipe } from '../../transfer/tune/tune-recipe.ts';
import type { TransferSession } from './session.ts';
import { percent } from './task-report.ts';

/** What keeps a folder's training, so that it can be gone on with. */
export const PROGRESS_FILE = 'progress.safetensors';

/** Trains with a line of progress, keeps what is needed to go on after each evaluation, and goes on from what is there. */
export async function keptTraining(
  session: TransferSession,
  { steps }: TuneRecipe,
  folder: string,
  train: (hooks: TuneHooks, from: TuneProgress | undefined) => Promise<TuneResult>,
): Promise<TuneResult> {
  const progressFile = path.join(folder, PROGRESS_FILE);
  const from = await readProgress(progressFile);
  const begin = from?.tuner.step ?? 0;
  if (begin > 0) session.say(`going on from step ${begin} of ${steps}`);
  const report = session.progress('step');
  let accuracy = from?.history.at(-1)?.accuracy;
  const hooks: TuneHooks = {
    onStep: ({ step, loss, measures: { alignmentLoss, adversaryAccuracy } }) => {
      const parts = [
        `loss ${loss.toFixed(3)}`,
        ...(alignmentLoss === undefined ? [] : [`alignment ${alignmentLoss.toFixed(3)}`]),
        ...(adversaryAccuracy === undefined ? [] : [`adversary ${percent(adversaryAccuracy)}`]),
        ...(accuracy === undefined ? [] : [`validation ${percent(accuracy)}`]),
      ];
      report(step + 1 - begin, steps - begin, parts.join(' · '));
    },
    onProgress: async (progress) => {
      accuracy = progress.history.at(-1)?.accuracy;
      await writeProgress(progressFile, progress);
    },
  };
  return train(hooks, from);
}
