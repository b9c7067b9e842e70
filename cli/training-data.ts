import type { RunConfig } from '../common/config/run-config.ts';
import { CoveyError } from '../common/errors.ts';
import type { ObjectStore } from '../common/objectstore/object-store.ts';
import { checkCaptions } from '../worker/data/check-captions.ts';
import { checkLabels } from '../worker/data/label-index.ts';
import { openTrainingData, type TrainingData } from '../worker/data/training-data.ts';
import { objectiveInputs } from '../worker/objectives/objective-inputs.ts';
import type { CommandContext } from './context.ts';
import { storeOpener } from './open-store.ts';

/** Opens a run's datasets, hands them over, closes their stores on every path. */
export async function withTrainingData<T>(
  context: CommandContext,
  config: RunConfig,
  work: (data: TrainingData) => Promise<T>,
): Promise<T> {
  const stores: ObjectStore[] = [];
  const openStore = async (url: string) => {
    const store = storeOpener(context)(url);
    stores.push(store);
    return store;
  };
  try {
    return await work(await openTrainingData(config, openStore, context.signal));
  } finally {
    for (const store of stores) await store.close();
  }
}

/**
 * Refuses datasets that lack what the objective learns from, or that cannot be planned so. What this machine may not or cannot read is left to
 * the workers, with a warning.
 */
export async function checkTrainingData(context: CommandContext, config: RunConfig): Promise<void> {
  const { captions, labels } = objectiveInputs(config);
  try {
    await withTrainingData(context, config, async ({ parts }) => {
      for (const part of parts) {
        if (captions) await checkCaptions(part, config, context.signal);
        if (labels) await checkLabels(part, config.loss.classes!, context.signal);
      }
    });
  } catch (thrown) {
    if (!isOutOfReach(thrown, config)) throw thrown;
    context.output.warn(`the dataset could not be checked from here: ${thrown.message}`);
  }
}

/** A folder may be there on the workers' machines alone. */
function isOutOfReach(thrown: unknown, { data }: RunConfig): thrown is CoveyError {
  if (CoveyError.is(thrown, 'UNAUTHENTICATED', 'PERMISSION_DENIED', 'UNAVAILABLE', 'TIMEOUT')) return true;
  const urls = data.mixture?.map(({ manifest }) => manifest) ?? [data.manifest!];
  return CoveyError.is(thrown, 'NOT_FOUND') && urls.some((url) => url.startsWith('file://'));
}
