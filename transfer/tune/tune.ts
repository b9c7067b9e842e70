import { throwIfAborted } from '../../common/errors.ts';
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
}

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
 * first). From `from` it goes on to the bits it would have reached without the interruption.
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
    let losses: number[] = [];
    while (tuner.stepsTaken < recipe.steps && !hasStalled(history, best?.record, recipe.patience)) {
      throwIfAborted(signal);
      const taken = await tuner.step(signal);
      losses.push(taken.loss);
      hooks.onStep?.(taken);
      if (tuner.stepsTaken % recipe.evaluateEverySteps !== 0 && tuner.stepsTaken < recipe.steps) continue;
      const record = await evaluate(tuner.stepsTaken, losses, modules);
      losses = [];
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
      ...trainedCounts(network, tuner.rules),
    };
  } finally {
    tuner.dispose();
  }
}

async function evaluate(step: number, losses: readonly number[], modules: TuneModules): Promise<TuneRecord> {
  const trainLoss = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
  const { validation, classes } = modules;
  if (validation.length === 0) return { step, trainLoss, accuracy: Number.NaN, crossEntropy: Number.NaN };
  const { accuracy, crossEntropy }: Evaluation = await evaluateNetwork(validation, classes, modules);
  return { step, trainLoss, accuracy, crossEntropy };
}

function isBetter(record: TuneRecord, best: TuneRecord, isJudged: boolean): boolean {
  if (!isJudged) return true;
  return (
    record.accuracy > best.accuracy || (record.accuracy === best.accuracy && record.crossEntropy < best.crossEntropy)
  );
}

function hasStalled(history: readonly TuneRecord[], best: TuneRecord | undefined, patience: number): boolean {
  if (patience === 0 || best === undefined) return false;
  return history.filter(({ step }) => step > best.step).length >= patience;
}
