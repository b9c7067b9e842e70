import { type AugmentConfig, augmentSchema } from '../../common/config/augment-config.ts';
import type { ModelConfig, RunConfig } from '../../common/config/run-config.ts';
import type { Logger } from '../../common/log.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import type { Tokenizer } from '../../models/tokenizer/tokenizer.ts';
import { type Dataset, openDataset, splitManifestUrl } from '../data/dataset.ts';
import { LaneLoader, sharedLaneBuffers } from '../data/lane-loader.ts';
import { createPlan } from '../data/plan.ts';
import type { ShardCache } from '../data/shard-cache.ts';
import { objectiveInputs } from '../objectives/objective-inputs.ts';
import { checkEvalData, checkEvalObjective } from './check-held-out.ts';
import type { EvaluatedDataset, LossBatches } from './evaluation.ts';
import { HeldOutData, type OpenedDataset } from './held-out-data.ts';

export interface HeldOutModules {
  /** Closed by whoever gave it. */
  readonly openStore: (url: string) => Promise<ObjectStore>;
  readonly openCache: (dataset: Dataset) => ShardCache;
  /** Of the run; null where its objective takes no captions. */
  readonly tokenizer: Tokenizer | null;
  readonly logger: Logger;
}

/** The held-out datasets of a run, opened and checked. @throws CoveyError CONFIG_INVALID where a task lacks something */
export async function openHeldOut(
  config: RunConfig,
  model: ModelConfig,
  modules: HeldOutModules,
  signal?: AbortSignal,
): Promise<EvaluatedDataset[]> {
  checkEvalObjective(config);
  const opened: EvaluatedDataset[] = [];
  for (const [i, held] of config.eval.datasets.entries()) {
    const test = await openOne(held.manifest, modules, signal);
    await checkEvalData(config, i, test.dataset, signal);
    const fit = held.fit === undefined ? undefined : await openOne(held.fit, modules, signal);
    const { globalBatch, lanes } = config.train;
    const options = {
      dataset: held,
      geometry: { lanes, laneBatch: globalBatch / lanes },
      imageSide: model.vision.imageSize,
      pixelsMax: config.data.pixelsMax,
    };
    const onBroken = (sampleId: string, reason: string) =>
      modules.logger.warn({ sampleId, reason }, 'broken held-out picture left out');
    const { tokenizer } = modules;
    const data = await HeldOutData.open(options, { test, fit, tokenizer, onBroken }, signal);
    const loss = held.tasks.includes('loss')
      ? lossBatches(config, model, { ...test, samplesMax: held.samplesMax }, modules)
      : undefined;
    opened.push({ data, loss });
  }
  return opened;
}

async function openOne(manifest: string, modules: HeldOutModules, signal?: AbortSignal): Promise<OpenedDataset> {
  const { storeUrl, key } = splitManifestUrl(manifest);
  const store = await modules.openStore(storeUrl);
  const dataset: Dataset = await openDataset(store, key, signal ? { signal } : {});
  return { dataset, cache: modules.openCache(dataset) };
}

/**
 * Whole global batches of held-out data in the order of their own plan, which depends on neither step nor workers; what does not fill a batch
 * is left out. Objectives that compare views take the run's augmentations, keyed by sample, the others none.
 */
function lossBatches(
  config: RunConfig,
  model: ModelConfig,
  test: OpenedDataset & { readonly samplesMax: number | undefined },
  modules: HeldOutModules,
): LossBatches {
  const { data, train, seed, loss } = config;
  const { views, captions } = objectiveInputs(config);
  const { dataset, cache, samplesMax = dataset.sampleCount } = test;
  const plan = createPlan({
    manifestSha256: dataset.sha256,
    shardSampleCounts: dataset.shardSampleCounts,
    seed,
    globalBatch: train.globalBatch,
    lanes: train.lanes,
    blockShards: data.shuffleBlockShards,
  });
  const augment: AugmentConfig = views > 1 ? data.augment : augmentSchema.parse({ scale: [1, 1], ratio: [1, 1] });
  const loader = new LaneLoader(
    {
      plan,
      imageSide: model.vision.imageSize,
      augment,
      decoded: { side: 0, bytesMax: 0 },
      pixelsMax: data.pixelsMax,
      views,
      captions,
      classes: loss.classes,
    },
    { dataset, cache, tokenizer: modules.tokenizer, logger: modules.logger },
  );
  return {
    count: Math.min(plan.stepsPerEpoch, Math.floor(samplesMax / train.globalBatch)),
    load: (batch, lanes, signal) =>
      Promise.all(
        lanes.map(async (lane) => {
          const buffers = sharedLaneBuffers(loader.geometry);
          await loader.load(batch, lane, buffers, signal);
          return { lane, ...buffers };
        }),
      ),
  };
}
