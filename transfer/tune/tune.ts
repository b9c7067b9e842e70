import { throwIfAborted } from '../../common/errors.ts';
import { mean } from '../../common/mean.ts';
import type { HostTensor } from '../../models/formats/safetensors.ts';
import type { LabelledSample } from '../data/labelled-set.ts';
import { type Evaluation, evaluateNetwork } from './evaluate.ts';
import { FineTuner, type FineTunerModules, type TunedStep, type TunerState } from './fine-tuner.ts';
import type { TuneRecipe } from './tune-recipe.ts';
import { trainedCounts } from './tune-rules.ts';

/** One evaluation on the validation split. */
export interface TuneRecord {
  /** Steps taken. */
  readonly step: number;
  /** Mean over the steps since the last one. */
  readonly trainLoss: number;
  readonly accuracy: number;
  readonly crossEntropy: number;
  /** Of the selection that chooses the weights, where there is one: the highest is kept. */
  readonly score?: number;
  /** Of an alignment the means over the steps since the last evaluation; of a selection what its score is made of. */
  readonly measures?: Readonly<Record<string, number>>;
}

/** Another way to choose the weights than by the validation split's accuracy. */
export type Selection = (validation: Evaluation) => Promise<{
  readonly score: number;
  readonly measures: Readonly<Record<string, number>>;
}>;

/** What is kept of a training between evaluations. */
export interface TuneProgress {
  readonly tuner: TunerState;
  readonly history: readonly TuneRecord[];
  /** Trained parameters at the best evaluation so far. */
  readonly best: { readonly record: TuneRecord; readonly tensors: ReadonlyMap<string, HostTensor> };
}

export interface TuneHooks {
  readonly onStep?: ((step: TunedStep) => void) | undefined;
  /** After each evaluation; awaited, so that it may store the progress. */
  readonly onProgress?: ((progress: TuneProgress) => Promise<void>) | undefined;
}

export interface TuneModules extends FineTunerModules {
  /** Chooses the weights and decides on stopping. Empty: the last weights, and no stopping. */
  readonly validation: readonly LabelledSample[];
  readonly selection?: Selection | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface TuneResult {
  readonly history: readonly TuneRecord[];
  /** The evaluation whose weights the network now has. */
  readonly best: TuneRecord;
  readonly steps: number;
  readonly stoppedEarly: boolean;
  /** Of backbone and adapter, without the head; and of the backbone. */
  readonly trained: number;
  readonly backbone: number;
}

/**
 * Trains the network and leaves it with the weights of the best evaluation (highest accuracy, of equals the lowest cross-entropy, of equals the
 * first; with a selection the highest score). From `from` it goes on to the bits it would have reached without the interruption.
 */
export async function tune(
  recipe: TuneRecipe,
  modules: TuneModules,
  hooks: TuneHooks = {},
  from?: TuneProgress,
): Promise<TuneResult> {
  const { network, signal } = modules;
  const tuner = new FineTuner(recipe, modules);
  try {
    const history = [...(from?.history ?? [])];
    let best = from?.best;
    if (from !== undefined) tuner.restore(from.tuner);
    let taken: TunedStep[] = [];
    while (tuner.stepsTaken < recipe.steps && !hasStalled(history, best?.record, recipe.patience)) {
      throwIfAborted(signal);
      const one = await tuner.step(signal);
      taken.push(one);
      hooks.onStep?.(one);
      if (tuner.stepsTaken % recipe.evaluateEverySteps !== 0 && tuner.stepsTaken < recipe.steps) continue;
      const record = await evaluate(tuner.stepsTaken, taken, modules);
      taken = [];
      history.push(record);
      if (best === undefined || isBetter(record, best.record, modules.validation.length > 0)) {
        best = { record, tensors: network.read((name) => tuner.changing.has(name)) };
      }
      await hooks.onProgress?.({ tuner: tuner.state(), history: [...history], best });
    }
    network.write(best!.tensors);
    const stoppedEarly = tuner.stepsTaken < recipe.steps;
    return {
      history,
      best: best!.record,
      steps: tuner.stepsTaken,
      stoppedEarly,
      ...trainedCounts(network, tuner.parameters),
    };
  } finally {
    tuner.dispose();
  }
}

async function evaluate(step: number, taken: readonly TunedStep[], modules: TuneModules): Promise<TuneRecord> {
  const trainLoss = mean(taken.map(({ loss }) => loss));
  const { validation, classes, selection } = modules;
  const aligned = meanMeasures(taken);
  if (validation.length === 0) {
    return { step, trainLoss, accuracy: Number.NaN, crossEntropy: Number.NaN, ...withMeasures(aligned) };
  }
  const evaluation = await evaluateNetwork(validation, classes, modules);
  const { accuracy, crossEntropy } = evaluation;
  const chosen = await selection?.(evaluation);
  const measures = withMeasures({ ...aligned, ...chosen?.measures });
  return { step, trainLoss, accuracy, crossEntropy, ...(chosen ? { score: chosen.score } : {}), ...measures };
}

function meanMeasures(taken: readonly TunedStep[]): Record<string, number> {
  const names = Object.keys(taken[0]?.measures ?? {});
  return Object.fromEntries(names.map((name) => [name, mean(taken.map(({ measures }) => measures[name]!))]));
}

const withMeasures = (measures: Record<string, number>) => (Object.keys(measures).length === 0 ? {} : { measures });

function isBetter(record: TuneRecord, best: TuneRecord, isJudged: boolean): boolean {
  if (!isJudged) return true;
  if (record.score !== undefined && best.score !== undefined) return record.score > best.score;
  return (
    record.accuracy > best.accuracy || (record.accuracy === best.accuracy && record.crossEntropy < best.crossEntropy)
  );
}

function hasStalled(history: readonly TuneRecord[], best: TuneRecord | undefined, patience: number): boolean {
  if (patience === 0 || best === undefined) return false;
  return history.filter(({ step }) => step > best.step).length >= patience;
}
