import type { EvalDatasetConfig } from '../../common/config/eval-config.ts';
import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Dataset } from '../data/dataset.ts';
import { objectiveInputs, trainsBothTowers } from '../objectives/objective-inputs.ts';

/** Samples of a held-out dataset that are looked at: the first ones. */
export function samplesOf(dataset: Dataset, { samplesMax }: EvalDatasetConfig): number {
  return Math.min(dataset.sampleCount, samplesMax ?? Number.POSITIVE_INFINITY);
}

/**
 * Whether an objective and held-out data have what the tasks ask for; asked by the command line before it submits and by the worker before
 * it trains.
 * @throws CoveyError CONFIG_INVALID
 */
export function checkEvalObjective(config: RunConfig): void {
  const {
    run,
    eval: { datasets },
    objective,
  } = config;
  const [hasImageTower, hasBothTowers] = [objectiveInputs(config).views > 0, trainsBothTowers(config)];
  for (const [i, { tasks }] of datasets.entries()) {
    const ofPictures = tasks.find((task) => task !== 'loss');
    if (ofPictures !== undefined && !hasImageTower) {
      const reason = `has ${ofPictures}, which needs an image tower; objective ${objective} trains none: choose loss`;
      throw invalid(run, `eval.datasets.${i}.tasks`, reason);
    }
    const ofPairs = tasks.find((task) => task === 'zeroshot' || task === 'retrieval');
    if (ofPairs === undefined || hasBothTowers) continue;
    const reason = `has ${ofPairs}, which needs a text tower; objective ${objective} trains none: choose knn, probe, loss or health`;
    throw invalid(run, `eval.datasets.${i}.tasks`, reason);
  }
}

/** @throws CoveyError CONFIG_INVALID */
export async function checkEvalData(
  config: RunConfig,
  i: number,
  dataset: Dataset,
  signal?: AbortSignal,
): Promise<void> {
  const held = config.eval.datasets[i]!;
  const path = `eval.datasets.${i}`;
  const samples = samplesOf(dataset, held);
  if (held.tasks.includes('loss') && samples < config.train.globalBatch) {
    const reason = `has loss, which is of whole batches of ${config.train.globalBatch} (train.globalBatch): the data have ${samples} samples`;
    throw invalid(config.run, `${path}.tasks`, reason);
  }
  if (!held.tasks.some((task) => task === 'knn' || task === 'probe')) return;
  const { record, sampleId } = await dataset.locate(0, signal);
  if (record.label === undefined) {
    throw invalid(
      config.run,
      `${path}.tasks`,
      `has ${held.tasks.find((task) => task === 'knn' || task === 'probe')}, which needs labels: ${sampleId} has none`,
    );
  }
}

function invalid(run: string, path: string, message: string): CoveyError {
  return new CoveyError('CONFIG_INVALID', `Cannot start run ${run}: ${path} ${message}`, {
    fields: { problems: [{ path, message }] },
  });
}
