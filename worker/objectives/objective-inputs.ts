import { objectiveParts, type SingleObjective } from '../../common/config/loss-config.ts';
import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectiveInputs } from './objective.ts';

const PAIRS: ObjectiveInputs = { views: 1, captions: true, labels: false };
const TWO_VIEWS: ObjectiveInputs = { views: 2, captions: false, labels: false };

/** What each objective takes of a sample, for those too who load data and have no engine. */
export const OBJECTIVE_INPUTS: Readonly<Record<SingleObjective, ObjectiveInputs>> = {
  clip: PAIRS,
  siglip: PAIRS,
  simclr: TWO_VIEWS,
  supcon: { views: 2, captions: false, labels: true },
  'moco-v2': TWO_VIEWS,
  'moco-v3': TWO_VIEWS,
  supervised: { views: 1, captions: false, labels: true },
  rotation: { views: 1, captions: false, labels: false },
  'rotation-pairs': { views: 2, captions: false, labels: false },
  cloze: { views: 0, captions: true, labels: false },
  mae: { views: 1, captions: false, labels: false },
};

/** Rotations by 90° that are told apart: the classes of the rotation objectives. */
export const QUARTER_TURNS = 4;

/** What of a run's config decides on what is learnt. */
export type ObjectiveChoice = Pick<RunConfig, 'objective' | 'loss'>;

/** What a run takes of a sample. The parts of a joint objective share captions and labels; each has views of its own, one behind the other. */
export function objectiveInputs(config: ObjectiveChoice): ObjectiveInputs {
  const parts = objectiveParts(config).map(({ objective }) => OBJECTIVE_INPUTS[objective]);
  return {
    views: parts.reduce((sum, { views }) => sum + views, 0),
    captions: parts.some(({ captions }) => captions),
    labels: parts.some(({ labels }) => labels),
  };
}

/** How many pictures of a sample go through the image tower for a backward, and how many through a momentum encoder, which has none. */
export function encodedPictures(part: SingleObjective): { readonly learnt: number; readonly keys: number } {
  switch (part) {
    case 'moco-v2':
      return { learnt: 1, keys: 1 };
    case 'moco-v3':
      return { learnt: 2, keys: 2 };
    case 'rotation':
      return { learnt: QUARTER_TURNS, keys: 0 };
    default:
      return { learnt: OBJECTIVE_INPUTS[part].views, keys: 0 };
  }
}

/** Whether it trains both of CLIP's towers. */
export function trainsBothTowers(config: ObjectiveChoice): boolean {
  return objectiveParts(config).some(({ objective }) => objective === 'clip' || objective === 'siglip');
}

/**
 * Whether the model has what the objective learns; asked by the command line before it submits and by the worker before it loads
 * anything.
 * @throws CoveyError CONFIG_INVALID
 */
export function checkModelFor(config: Pick<RunConfig, 'run' | 'objective' | 'loss'>, model: ModelConfig): void {
  const { run, objective } = config;
  const hasSiglip = objectiveParts(config).some((part) => part.objective === 'siglip');
  const bias = model.initLogitBias;
  const message =
    hasSiglip && bias === undefined
      ? 'is needed by objective siglip: without its bias the negatives, N − 1 of N, swamp the first steps; −10 in the paper'
      : !hasSiglip && bias !== undefined
        ? `is for objective siglip, objective is ${objective}: its loss would never move it`
        : undefined;
  if (message === undefined) return;
  const problem = { path: 'model.initLogitBias', message, value: bias };
  throw new CoveyError('CONFIG_INVALID', `Cannot start run ${run}: ${problem.path} ${message}`, {
    fields: { problems: [problem] },
  });
}

/** Zero-shot needs both towers. @throws CoveyError UNSUPPORTED where the objective did not train both */
export function expectBothTowers(config: ObjectiveChoice, verb: string): void {
  if (trainsBothTowers(config)) return;
  const { objective } = config;
  const missing = objectiveInputs(config).captions ? 'image' : 'text';
  throw new CoveyError('UNSUPPORTED', `Cannot ${verb}: objective ${objective} trains no ${missing} tower`, {
    fields: { objective },
  });
}
