import { readFile } from 'node:fs/promises';
import { z } from 'zod';
import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { DatasetFacts, ModelCardFacts } from '../../models/formats/model-card.ts';
import type { CheckpointManifest, WeightKind } from '../../worker/checkpoint/checkpoint-format.ts';
import { splitManifestUrl } from '../../worker/data/dataset.ts';
import { datasetManifestSchema } from '../../worker/data/manifest.ts';
import type { CommandContext } from '../context.ts';
import { withStore } from '../open-store.ts';
import { packageVersion } from '../package-version.ts';
import type { StoredRun } from '../stored-run.ts';

export interface CardOptions {
  /** JSON files of results, as `covey eval … --json` prints them. */
  readonly metrics?: readonly string[];
  readonly license?: string;
}

/** What the card of a run's checkpoint says. A dataset whose manifest cannot be read any more is left out, with a warning. */
export async function runCardFacts(
  run: StoredRun,
  manifest: CheckpointManifest,
  weights: WeightKind,
  options: CardOptions,
  context: CommandContext,
): Promise<ModelCardFacts> {
  return {
    name: run.name,
    origin: 'pretrained with covey',
    training: trainingRows(run.config, manifest, weights),
    data: await datasetFacts(run.config, context),
    metrics: await readMetrics(options.metrics ?? []),
    license: options.license,
  };
}

function trainingRows(
  config: RunConfig,
  manifest: CheckpointManifest,
  weights: WeightKind,
): [string, string | number][] {
  const { train, seed, objective } = config;
  return [
    ['Objective', objective],
    ['Steps', `${manifest.step} of ${train.steps}`],
    ['Weights', weights === 'ema' ? 'moving average' : 'of the last step'],
    ['Samples per step', train.globalBatch],
    ['Samples seen', manifest.step * train.globalBatch],
    ['Optimiser', train.optimizer.name ?? 'adamw'],
    ['Learning rate', train.optimizer.lr],
    ['Precision', train.precision],
    ['Seed', seed],
    ['Config (SHA-256)', manifest.configSha256],
    ['Dataset (SHA-256)', manifest.datasetSha256],
    ['Written at', manifest.createdAt],
    ['Exported by', `covey ${packageVersion()}`],
  ];
}

async function datasetFacts({ data }: RunConfig, context: CommandContext): Promise<DatasetFacts[]> {
  const manifests =
    data.mixture?.map(({ manifest }) => manifest) ?? (data.manifest === undefined ? [] : [data.manifest]);
  const facts: DatasetFacts[] = [];
  for (const manifest of manifests) {
    try {
      facts.push(await readDatasetFacts(manifest, context));
    } catch (thrown) {
      context.output.warn(`the card does not name a dataset: ${CoveyError.from(thrown).message}`);
    }
  }
  return facts;
}

async function readDatasetFacts(manifest: string, context: CommandContext): Promise<DatasetFacts> {
  const { storeUrl, key } = splitManifestUrl(manifest);
  return withStore(context, storeUrl, async (store) => {
    const { bytes } = await store.get(key, { signal: context.signal });
    const { name, sampleCount, sources } = datasetManifestSchema.parse(JSON.parse(Buffer.from(bytes).toString('utf8')));
    return { name, sampleCount, sources };
  });
}

const metricsSchema = z.record(z.string(), z.unknown());

/** Every number at the top of each file. @throws CoveyError INVALID_ARGUMENT for what is no JSON object */
async function readMetrics(files: readonly string[]): Promise<[string, number][]> {
  const rows: [string, number][] = [];
  for (const file of files) {
    try {
      const values = metricsSchema.parse(JSON.parse(await readFile(file, 'utf8')));
      for (const [name, value] of Object.entries(values)) if (typeof value === 'number') rows.push([name, value]);
    } catch (thrown) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot use the results of ${file}: it is not a JSON object, as \`covey eval … --json\` prints one`,
        { cause: thrown, fields: { file } },
      );
    }
  }
  return rows;
}
