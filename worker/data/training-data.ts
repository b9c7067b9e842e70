import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { type Dataset, openDataset, splitManifestUrl } from './dataset.ts';
import { createMixturePlan } from './mixture-plan.ts';
import { createPlan, type Plan } from './plan.ts';
import { DatasetMixture, type SampleSet, ShardCaches, type ShardReader, type WeightedDataset } from './sample-set.ts';

/** What of a run's config decides on its data and their order. */
export type TrainingDataConfig = Pick<RunConfig, 'seed' | 'data' | 'train'>;

/** The datasets of a run, opened. Whoever opened the stores closes them. */
export interface TrainingData {
  /** One for `data.manifest`. Weight and name are those of `data.mixture`. */
  readonly parts: readonly WeightedDataset[];
  readonly samples: SampleSet;
  readonly plan: Plan;
}

/**
 * Opens `data.manifest` or `data.mixture` and plans the order.
 * @throws CoveyError NOT_FOUND, DATA_CORRUPT as openDataset; CONFIG_INVALID where datasets are doubled; INVALID_ARGUMENT as the plans
 */
export async function openTrainingData(
  config: TrainingDataConfig,
  openStore: (url: string) => Promise<ObjectStore>,
  signal?: AbortSignal,
): Promise<TrainingData> {
  const { seed, data, train } = config;
  const open = async (manifest: string): Promise<Dataset> => {
    const { storeUrl, key } = splitManifestUrl(manifest);
    return openDataset(await openStore(storeUrl), key, signal === undefined ? {} : { signal });
  };
  const order = {
    seed,
    globalBatch: train.globalBatch,
    lanes: train.lanes,
    blockShards: data.shuffleBlockShards,
    replacement: data.replacement,
  };
  if (data.mixture === undefined) {
    const dataset = await open(data.manifest!);
    const plan = createPlan({
      ...order,
      manifestSha256: dataset.sha256,
      shardSampleCounts: dataset.shardSampleCounts,
    });
    return { parts: [{ name: dataset.manifest.name, weight: 1, dataset }], samples: dataset, plan };
  }
  const parts: WeightedDataset[] = [];
  for (const { manifest, weight, name } of data.mixture) {
    const dataset = await open(manifest);
    parts.push({ name: name ?? dataset.manifest.name, weight, dataset });
  }
  refuseDoubles(parts);
  const plan = createMixturePlan({
    ...order,
    parts: parts.map(({ name, weight, dataset }) => ({
      name,
      weight,
      manifestSha256: dataset.sha256,
      shardSampleCounts: dataset.shardSampleCounts,
    })),
  });
  return { parts, samples: new DatasetMixture(parts, data), plan };
}

/** One reader for all shards, with a cache per dataset. */
export function shardReaderFor(
  { parts }: Pick<TrainingData, 'parts'>,
  cacheOf: (dataset: Dataset) => ShardReader,
): ShardReader {
  const [first, ...others] = parts;
  if (others.length === 0) return cacheOf(first!.dataset);
  return new ShardCaches(parts.map(({ dataset }) => ({ dataset, cache: cacheOf(dataset) })));
}

function refuseDoubles(parts: readonly WeightedDataset[]): void {
  const problems = parts.flatMap(({ name, dataset }, i) => {
    const earlier = parts.slice(0, i);
    const path = `data.mixture.${i}`;
    const same = earlier.find((other) => other.dataset.sha256 === dataset.sha256);
    if (same !== undefined)
      return [{ path, message: `is the same dataset as ${same.name}; list it once, with the sum of the weights` }];
    if (earlier.some((other) => other.name === name))
      return [{ path, message: `has the name of another: ${name}; give it a \`name\` of its own` }];
    return [];
  });
  if (problems.length === 0) return;
  throw new CoveyError(
    'CONFIG_INVALID',
    `Cannot mix datasets: ${problems.map(({ path, message }) => `${path} ${message}`).join('; ')}`,
    { fields: { problems } },
  );
}
