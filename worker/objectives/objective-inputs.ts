import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectiveInputs } from './objective.ts';

const PAIRS: ObjectiveInputs = { views: 1, captions: true, labels: false };
const TWO_VIEWS: ObjectiveInputs = { views: 2, captions: false, labels: false };

/** What each objective takes of a sample, for those too who load data and have no engine. */
export const OBJECTIVE_INPUTS: Readonly<Record<RunConfig['objective'], ObjectiveInputs>> = {
  clip: PAIRS,
  siglip: PAIRS,
  simclr: TWO_VIEWS,
  supcon: { views: 2, captions: false, labels: true },
  'moco-v2': TWO_VIEWS,
  'moco-v3': TWO_VIEWS,
  supervised: { views: 1, captions: false, labels: true },
};

/**
 * Whether the model has what the objective learns; asked by the command line before it submits and by the worker before it loads
 * anything.
 * @throws CoveyError CONFIG_INVALID
 */
export function checkModelFor({ run, objective }: Pick<RunConfig, 'run' | 'objective'>, model: ModelConfig): void {
  const bias = model.initLogitBias;
  const message =
    objective === 'siglip' && bias === undefined
      ? 'is needed by objective siglip: without its bias the negatives, N − 1 of N, swamp the first steps; −10 in the paper'
      : objective !== 'siglip' && bias !== undefined
        ? `is for objective siglip, objective is ${objective}: its loss would never move it`
        : undefined;
  if (message === undefined) return;
  const problem = { path: 'model.initLogitBias', message, value: bias };
  throw new CoveyError('CONFIG_INVALID', `Cannot start run ${run}: ${problem.path} ${message}`, {
    fields: { problems: [problem] },
  });
}

/** Zero-shot needs both towers. @throws CoveyError UNSUPPORTED where the objective trained none for text */
export function expectTextTower(objective: RunConfig['objective'], verb: string): void {
  if (OBJECTIVE_INPUTS[objective].captions) return;
  throw new CoveyError('UNSUPPORTED', `Cannot ${verb}: objective ${objective} trains no text tower`, {
    fields: { objective },
  });
}
