import { throwIfAborted } from '../../../common/errors.ts';
import type { Dataset, DatasetShard, LocatedSample } from '../dataset.ts';
import { encodeJson, type IndexedSample, SHARD_INDEX_VERSION, type ShardEntry } from '../manifest.ts';
import { mapInOrder } from '../map-in-order.ts';
import { indexKey } from '../pack/shard-writer.ts';
import { sha256Hex } from '../sha256.ts';
import { parseSidecar } from '../tar-samples.ts';
import { parquetRowsBeside } from './parquet.ts';
import type { SampleFilter } from './sample-filter.ts';
import type { Row } from './where.ts';

const SHARDS_AT_ONCE = 2;
const SIDECARS_AT_ONCE = 8;

/**
 * The shards of a dataset that hold a sample which the filter keeps, with new indices that list only those; written to the dataset's own
 * store, under `prefix`. The tars stay as they are and are shared. Columns come from the index (`key`, `caption`, `label`, `meta`); what it
 * lacks from the parquet file beside the tar, and what that lacks from the json beside each picture, read by ranges.
 */
export async function filterShards(
  dataset: Dataset,
  options: {
    readonly prefix: string;
    readonly filter: SampleFilter;
    readonly onShard: (entry: ShardEntry | undefined) => void;
  },
  signal?: AbortSignal,
): Promise<ShardEntry[]> {
  const { prefix, filter, onShard } = options;
  const entries: ShardEntry[] = [];
  const filtered = mapInOrder(dataset.shards, SHARDS_AT_ONCE, async (shard) => {
    const { samples } = await dataset.shardIndex(shard, signal);
    const rows = await shardRows(dataset, shard, samples, filter.where.columns, signal);
    const kept = samples.filter((sample, i) => filter.keeps(rows[i]!, `${shard.key}/${sample.key}`));
    filter.checkColumns();
    if (kept.length === 0) return undefined;
    const index = encodeJson({ version: SHARD_INDEX_VERSION, samples: kept });
    const indexSha256 = sha256Hex(index);
    const name = shard.key.slice(shard.key.lastIndexOf('/') + 1, -'.tar'.length);
    const { key, bytes, sha256 } = shard;
    const entry = { key, bytes, sha256, samples: kept.length, indexKey: indexKey(name, indexSha256), indexSha256 };
    await dataset.store.put(prefix + entry.indexKey, index, signal === undefined ? {} : { signal });
    return entry;
  });
  for await (const entry of filtered) {
    if (entry !== undefined) entries.push(entry);
    onShard(entry);
  }
  return entries;
}

async function shardRows(
  dataset: Dataset,
  shard: DatasetShard,
  samples: readonly IndexedSample[],
  columns: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Row[]> {
  let rows: Row[] = samples.map(indexedRow);
  const lacking = () => columns.filter((name) => !rows.some((row) => Object.hasOwn(row, name)));
  if (lacking().length > 0) {
    const beside = await parquetRowsBeside(dataset.store, shard.storeKey, lacking(), signal);
    if (beside !== undefined) rows = rows.map((row, i) => ({ ...beside.get(samples[i]!.key), ...row }));
  }
  if (lacking().length > 0) {
    const sidecars = await readSidecars(dataset, shard, samples, signal);
    rows = rows.map((row, i) => ({ ...sidecars[i], ...row }));
  }
  return rows;
}

/** What an index says of a sample, as columns. */
export function indexedRow({ key, captions, label, meta }: LocatedSample['record']): Row {
  return { ...meta, key, caption: captions[0] ?? null, ...(label === undefined ? {} : { label }) };
}

async function readSidecars(
  { store }: Dataset,
  shard: DatasetShard,
  samples: readonly IndexedSample[],
  signal: AbortSignal | undefined,
): Promise<Row[]> {
  const rows: Row[] = [];
  const read = async ({ files }: IndexedSample): Promise<Row> => {
    throwIfAborted(signal);
    const extent = files['json'];
    if (extent === undefined) return {};
    const range = { offset: extent[0], length: extent[1] };
    const { bytes } = await store.get(shard.storeKey, signal === undefined ? { range } : { range, signal });
    return parseSidecar(new TextDecoder().decode(bytes)) ?? {};
  };
  for await (const row of mapInOrder(samples, SIDECARS_AT_ONCE, read)) rows.push(row);
  return rows;
}
