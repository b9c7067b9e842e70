import { concatenated } from '../../common/concatenated.ts';
import { throwIfAborted } from '../../common/errors.ts';
import { unitRows } from '../../models/linear/unit-rows.ts';
import { Dataset, type DatasetShard } from '../../worker/data/dataset.ts';
import { evalBatches } from '../../worker/data/eval-loader.ts';
import type { ShardCache } from '../../worker/data/shard-cache.ts';
import type { EmbeddedShard, EmbeddingKey, EmbeddingStore } from './embedding-store.ts';
import type { PictureEncoder } from './extract-features.ts';

/** A share of the shards: those whose number is `index` modulo `of`. */
export interface ShardPart {
  readonly index: number;
  readonly of: number;
}

export interface EmbedOptions {
  readonly pixelsMax: number;
  /** What this process does of all. Default: all. */
  readonly part?: ShardPart;
}

export interface EmbedModules {
  readonly encoder: PictureEncoder;
  readonly dataset: Dataset;
  readonly cache: ShardCache;
  readonly folder: EmbeddingStore;
  readonly signal?: AbortSignal | undefined;
  /** After each batch. */
  readonly onProgress?: ((progress: EmbedProgress) => void) | undefined;
  readonly onBroken?: ((sampleId: string, reason: string) => void) | undefined;
}

export interface EmbedProgress {
  /** Pictures of this process's shards that are done, those of earlier runs included; and all of them. */
  readonly done: number;
  readonly total: number;
  /** Of `done`, by earlier runs. */
  readonly skipped: number;
}

const BATCH = 128;

/**
 * Runs an encoder over a dataset, shard by shard. A finished shard is skipped, so an interrupted run is gone on with by running it again,
 * and several processes may share the work by parts. Broken pictures have no row.
 */
export async function embedDataset(options: EmbedOptions, modules: EmbedModules): Promise<EmbedProgress> {
  const { dataset, folder, signal, onProgress } = modules;
  const { total, skipped, left } = await shardsLeft(dataset, folder, options.part);
  let done = skipped;
  for (const shard of left) {
    throwIfAborted(signal);
    const before = done;
    await embedShard(shard, options, modules, (pictures) => onProgress?.({ done: before + pictures, total, skipped }));
    done += shard.samples;
    onProgress?.({ done, total, skipped });
  }
  return { done, total, skipped };
}

export interface ShardsLeft {
  /** Pictures of all shards of the part, and of those that are finished. */
  readonly total: number;
  readonly skipped: number;
  readonly left: readonly DatasetShard[];
}

/** What a folder lacks of a part of a dataset. */
export async function shardsLeft(dataset: Dataset, folder: EmbeddingStore, part?: ShardPart): Promise<ShardsLeft> {
  const { index, of } = part ?? { index: 0, of: 1 };
  const shards = dataset.shards.filter((shard) => shard.index % of === index);
  const finished = new Set(await folder.finishedShards());
  const left = shards.filter((shard) => !finished.has(shard.index));
  const count = (some: readonly DatasetShard[]) => some.reduce((sum, { samples }) => sum + samples, 0);
  return { total: count(shards), skipped: count(shards) - count(left), left };
}

/** Computes one shard's features and writes them. The same bits whoever does it. @param onPictures how many of its pictures are done */
export async function embedShard(
  shard: DatasetShard,
  options: Pick<EmbedOptions, 'pixelsMax'>,
  modules: EmbedModules,
  onPictures?: (count: number) => void,
): Promise<void> {
  await modules.folder.write(shard.index, await embeddedShard(shard, options, modules, onPictures));
}

async function embeddedShard(
  shard: DatasetShard,
  { pixelsMax }: Pick<EmbedOptions, 'pixelsMax'>,
  modules: EmbedModules,
  onPictures?: (count: number) => void,
): Promise<EmbeddedShard> {
  const { encoder, cache, signal, onBroken } = modules;
  const keys: EmbeddingKey[] = [];
  const parts: Float32Array[] = [];
  const loader = { imageSide: encoder.imageSide, batch: BATCH, pixelsMax };
  const dataset = shardAlone(modules.dataset, shard);
  for await (const { pixels, samples, broken } of evalBatches(loader, { dataset, cache }, signal)) {
    for (const { sampleId, reason } of broken) onBroken?.(sampleId, reason);
    if (samples.length === 0) continue;
    parts.push(encoder.encode(pixels));
    for (const { sampleId, record } of samples) {
      const { label, captions } = record;
      keys.push({
        key: sampleId,
        ...(label === undefined ? {} : { label }),
        ...(captions[0] === undefined ? {} : { caption: captions[0] }),
      });
    }
    onPictures?.(keys.length);
  }
  const { columns } = encoder;
  const rows = modules.folder.normalised ? parts.map((part) => unitRows(part, columns)) : parts;
  return { keys, features: { values: concatenated(rows), columns } };
}

function shardAlone(dataset: Dataset, shard: DatasetShard): Dataset {
  const { manifest, sha256, store } = dataset;
  const entry = manifest.shards[shard.index]!;
  const folder = shard.storeKey.slice(0, shard.storeKey.length - entry.key.length);
  return new Dataset(
    { manifest: { ...manifest, shards: [entry], sampleCount: entry.samples }, sha256, folder },
    { store },
  );
}
