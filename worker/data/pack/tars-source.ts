import { CoveyError } from '../../../common/errors.ts';
import { indexedRow } from '../filter/filter-manifest.ts';
import { parquetRowsBeside } from '../filter/parquet.ts';
import type { SampleFilter } from '../filter/sample-filter.ts';
import { encodeJson, type IndexedSample, SHARD_INDEX_VERSION, type ShardEntry } from '../manifest.ts';
import { mapInOrder } from '../map-in-order.ts';
import { sha256Hex } from '../sha256.ts';
import { listTar, objectChunks } from '../tar-index.ts';
import { type IndexedTar, samplesOfTar, type TarReading } from '../tar-samples.ts';
import { byCodePoint } from './candidate.ts';
import type { PackContext, PackOptions, PackTally } from './pack.ts';
import { indexKey } from './shard-writer.ts';

export interface TarsSourceOptions {
  /** Keys of the tars in the destination store, under `prefix`. Default: every `.tar` under `prefix`. */
  readonly keys?: readonly string[];
  /** What is taken from each. */
  readonly reading?: TarReading;
}

/**
 * Indexes WebDataset tars where they lie, without copying: each is read once, for its hash, its member offsets and its captions.
 * Pictures are not decoded here; one that is broken is replaced in training and counted there.
 */
export async function indexTars(
  source: TarsSourceOptions,
  options: PackOptions,
  tally: PackTally,
  context: PackContext,
): Promise<ShardEntry[]> {
  const prefix = options.prefix ?? '';
  const keys = source.keys ?? (await tarKeys(options, context.signal));
  const outside = keys.find((key) => !key.startsWith(prefix));
  if (outside !== undefined) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot index ${outside}: it does not lie under the manifest's folder ${prefix}`,
    );
  }
  if (keys.length === 0)
    throw new CoveyError('NOT_FOUND', `Cannot index tars: there is no .tar under ${options.destination.url}/${prefix}`);
  const entries: ShardEntry[] = [];
  for await (const entry of mapInOrder(keys, 2, (key) =>
    indexTar(key, source.reading ?? {}, options, tally, context),
  )) {
    if (entry !== undefined) entries.push(entry);
    tally.progress();
  }
  return entries;
}

async function tarKeys(options: PackOptions, signal?: AbortSignal): Promise<string[]> {
  const keys: string[] = [];
  for await (const object of options.destination.list(options.prefix ?? '', signal === undefined ? {} : { signal })) {
    if (object.key.endsWith('.tar')) keys.push(object.key);
  }
  return keys.sort(byCodePoint);
}

/** Undefined where the tar holds no usable sample. */
async function indexTar(
  key: string,
  reading: TarReading,
  options: PackOptions,
  tally: PackTally,
  context: PackContext,
): Promise<ShardEntry | undefined> {
  const { destination } = options;
  const prefix = options.prefix ?? '';
  const call = context.signal === undefined ? {} : { signal: context.signal };
  const object = await destination.head(key, call);
  if (object === null)
    throw new CoveyError('NOT_FOUND', `Cannot index ${key}: it does not exist in ${destination.url}`);
  const listing = await listTar(objectChunks(destination, object, call), context.signal);
  const indexed = samplesOfTar(listing, reading);
  for (const one of indexed.skipped) tally.skip(`${key}:${one.name}`, one.reason);
  const { filter } = tally;
  const samples = filter === undefined ? indexed.samples : await kept(key, indexed, filter, options, context.signal);
  if (samples.length === 0 && indexed.samples.length > 0) return undefined;
  if (samples.length === 0) {
    tally.skip(key, 'empty-tar');
    return undefined;
  }
  const index = encodeJson({ version: SHARD_INDEX_VERSION, samples: [...samples] });
  const indexSha256 = sha256Hex(index);
  const name = key.slice(key.lastIndexOf('/') + 1, -'.tar'.length);
  const entry: ShardEntry = {
    key: key.slice(prefix.length),
    bytes: listing.bytes,
    sha256: listing.sha256,
    samples: samples.length,
    indexKey: indexKey(name, indexSha256),
    indexSha256,
  };
  await destination.put(prefix + entry.indexKey, index, call);
  tally.packed += samples.length;
  tally.shards++;
  tally.bytes += listing.bytes;
  return entry;
}

/** By the json beside each picture, and by the parquet file beside the tar for columns that no json has. */
async function kept(
  key: string,
  { samples, sidecars }: IndexedTar,
  filter: SampleFilter,
  { destination }: PackOptions,
  signal: AbortSignal | undefined,
): Promise<readonly IndexedSample[]> {
  const rows = samples.map((sample, i) => ({ ...sidecars[i], ...indexedRow(sample) }));
  const lacking = filter.where.columns.filter((name) => !rows.some((row) => Object.hasOwn(row, name)));
  const beside = lacking.length === 0 ? undefined : await parquetRowsBeside(destination, key, lacking, signal);
  const chosen = samples.filter((sample, i) =>
    filter.keeps({ ...beside?.get(sample.key), ...rows[i] }, `${key}/${sample.key}`),
  );
  filter.checkColumns();
  return chosen;
}
