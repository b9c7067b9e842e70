import sharp from 'sharp';
import { PIXELS_MAX_DEFAULT } from '../../../common/config/pixels-max.ts';
import { CoveyError, throwIfAborted } from '../../../common/errors.ts';
import type { Logger } from '../../../common/log.ts';
import type { ObjectStore } from '../../../common/objectstore/object-store.ts';
import { decodeRgb } from '../../../models/preprocess/decode.ts';
import { readImageHeader } from '../../../models/preprocess/image-header.ts';
import { openDataset } from '../dataset.ts';
import { filterShards } from '../filter/filter-manifest.ts';
import { type FilterReport, SampleFilter } from '../filter/sample-filter.ts';
import { type DatasetManifest, encodeJson, MANIFEST_VERSION, type ShardEntry } from '../manifest.ts';
import { mapInOrder } from '../map-in-order.ts';
import { sha256Hex } from '../sha256.ts';
import { byCodePoint, type Candidate, type SourceItem } from './candidate.ts';
import { type FolderSourceOptions, folderSource } from './folder-source.ts';
import { type IconSetOptions, iconSetCredit, iconSource } from './icon-source.ts';
import { type FinishedShard, type PackedPicture, ShardWriter } from './shard-writer.ts';
import { type TableSourceOptions, tableSource } from './table-source.ts';
import { indexTars, type TarsSourceOptions } from './tars-source.ts';

/** Skipped samples named in a report; all are counted. */
const NAMED_MAX = 100;
const FILE_BYTES_MAX = 64 * 2 ** 20;

export type PackSource =
  | ({ readonly kind: 'folder' } & Omit<FolderSourceOptions, 'fileBytesMax'>)
  | ({ readonly kind: 'table' } & Omit<TableSourceOptions, 'fileBytesMax'>)
  | ({ readonly kind: 'icons'; readonly sets: readonly string[] } & IconSetOptions)
  | ({ readonly kind: 'tars' } & TarsSourceOptions)
  /** Of the destination store. */
  | { readonly kind: 'manifest'; readonly key: string };

export interface PackOptions {
  /** '' with a manifest: keeps its name. */
  readonly name: string;
  readonly source: PackSource;
  /** For existing tars: the store they lie in. */
  readonly destination: ObjectStore;
  /** Folder of the manifest in the destination, '' or ending in '/'. Default ''. */
  readonly prefix?: string;
  /** Default 64 MiB. */
  readonly shardBytesMax?: number;
  /** Default 10,000. */
  readonly samplesPerShardMax?: number;
  /** Shrinks pictures whose shortest side is longer, and encodes again. Default: the files as they are. */
  readonly resize?: {
    readonly shortestSide: number;
    readonly format: 'jpeg' | 'png' | 'webp';
    readonly quality?: number;
  };
  /** Default 50,000,000. */
  readonly pixelsMax?: number;
  /** Default 64 MiB. */
  readonly fileBytesMax?: number;
  /** Pictures in the making at once. Default 4. */
  readonly concurrency?: number;
  /** Keeps only samples for which this holds (filter/where.ts). */
  readonly where?: string;
  /** Where the pictures are from and their licences; added to what the source knows. */
  readonly sources?: Readonly<Record<string, string>>;
}

export interface PackProgress {
  readonly packed: number;
  readonly skipped: number;
  readonly shards: number;
  readonly bytes: number;
}

export interface PackReport extends PackProgress {
  /** Counts by reason. */
  readonly skippedByReason: Readonly<Record<string, number>>;
  /** The first ones by name. */
  readonly skippedNamed: readonly { readonly name: string; readonly reason: string }[];
  readonly filter?: FilterReport;
}

export interface PackResult {
  readonly manifest: DatasetManifest;
  readonly manifestSha256: string;
  /** Key of the manifest under its hash; `<prefix>manifest.json` is a copy, unless a manifest was filtered, which keeps its place. */
  readonly manifestKey: string;
  readonly report: PackReport;
}

export interface PackContext {
  readonly logger: Logger;
  readonly signal?: AbortSignal;
  readonly onProgress?: (progress: PackProgress) => void;
}

/** Counts as it goes; what every source reports to. */
export class PackTally {
  packed = 0;
  skipped = 0;
  shards = 0;
  bytes = 0;
  /** Names of the labels, where the manifest is to list them. */
  readonly classes = new Set<string>();
  readonly filter: SampleFilter | undefined;
  readonly #byReason = new Map<string, number>();
  readonly #named: { name: string; reason: string }[] = [];
  readonly #context: PackContext;

  constructor(context: PackContext, where?: string) {
    this.#context = context;
    this.filter = where === undefined ? undefined : new SampleFilter(where);
  }

  skip(name: string, reason: string): void {
    this.skipped++;
    this.#byReason.set(reason, (this.#byReason.get(reason) ?? 0) + 1);
    if (this.#named.length < NAMED_MAX) this.#named.push({ name, reason });
    this.#context.logger.debug({ name, reason }, 'sample left out');
  }

  progress(): void {
    const { packed, skipped, shards, bytes } = this;
    this.#context.onProgress?.({ packed, skipped, shards, bytes });
  }

  report(): PackReport {
    const { packed, skipped, shards, bytes } = this;
    const skippedByReason = Object.fromEntries([...this.#byReason].sort(([a], [b]) => (a < b ? -1 : 1)));
    const filter = this.filter === undefined ? {} : { filter: this.filter.report() };
    return { packed, skipped, shards, bytes, skippedByReason, skippedNamed: this.#named, ...filter };
  }
}

/**
 * Makes a dataset: shards, indices and manifest in the destination. The same input makes the same bytes. Broken input is left
 * out and reported, never a failure. Throws INVALID_ARGUMENT where nothing is left, NOT_FOUND where the source is missing, and
 * what the store throws. Nothing refers to the new objects until the manifest is written, last.
 */
export async function pack(options: PackOptions, context: PackContext): Promise<PackResult> {
  const { source } = options;
  const tally = new PackTally(context, options.where);
  if (source.kind === 'manifest') return filterManifest(source.key, options, tally, context);
  const entries =
    source.kind === 'tars'
      ? await indexTars(source, options, tally, context)
      : await packShards(options, tally, context);
  tally.filter?.checkColumns();
  tally.filter?.assertKept();
  const report = tally.report();
  if (entries.length === 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot pack ${options.name}: no usable sample: ${JSON.stringify(report.skippedByReason)} left out${'image-without-caption' in report.skippedByReason ? '; --captions none packs pictures alone' : ''}`,
      { fields: { report } },
    );
  }
  const credits =
    source.kind === 'icons'
      ? Object.fromEntries(
          source.sets
            .filter((set) => !source.exclude?.includes(set))
            .map((set) => [set, iconSetCredit(set, source.root)]),
        )
      : {};
  const manifest: DatasetManifest = {
    version: MANIFEST_VERSION,
    name: options.name,
    sampleCount: entries.reduce((sum, entry) => sum + entry.samples, 0),
    shards: [...entries],
    sources: { ...credits, ...options.sources },
    ...(tally.classes.size === 0 ? {} : { classes: [...tally.classes].sort(byCodePoint) }),
    ...(options.where === undefined ? {} : { filter: { where: options.where } }),
    createdBy: 'covey pack',
  };
  return storeManifest(manifest, 'manifest.json', options, report, context);
}

/** A new manifest over the shards of another. The tars are not copied, and the other stays as it is. */
async function filterManifest(
  key: string,
  options: PackOptions,
  tally: PackTally,
  context: PackContext,
): Promise<PackResult> {
  const { filter } = tally;
  const { signal } = context;
  if (filter === undefined || options.where === undefined) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot pack ${key}: it is packed already; say which samples with --where`,
    );
  }
  const dataset = await openDataset(options.destination, key, signal === undefined ? {} : { signal });
  const prefix = key.slice(0, key.lastIndexOf('/') + 1);
  const onShard = (entry: ShardEntry | undefined) => {
    tally.packed += entry?.samples ?? 0;
    tally.shards += entry === undefined ? 0 : 1;
    tally.bytes += entry?.bytes ?? 0;
    tally.progress();
  };
  const shards = await filterShards(dataset, { prefix, filter, onShard }, signal);
  filter.assertKept();
  const manifest: DatasetManifest = {
    ...dataset.manifest,
    name: options.name || dataset.manifest.name,
    sampleCount: shards.reduce((sum, entry) => sum + entry.samples, 0),
    shards,
    filter: { where: options.where, ofManifestSha256: dataset.sha256 },
  };
  return storeManifest(manifest, undefined, { ...options, prefix }, tally.report(), context);
}

/** Under its hash, and as `alias` for people. */
async function storeManifest(
  manifest: DatasetManifest,
  alias: string | undefined,
  options: PackOptions,
  report: PackReport,
  context: PackContext,
): Promise<PackResult> {
  const bytes = encodeJson(manifest);
  const manifestSha256 = sha256Hex(bytes);
  const prefix = options.prefix ?? '';
  const manifestKey = `${prefix}manifest-${manifestSha256.slice(0, 16)}.json`;
  const call = context.signal === undefined ? {} : { signal: context.signal };
  await options.destination.put(manifestKey, bytes, call);
  if (alias !== undefined) await options.destination.put(prefix + alias, bytes, call);
  return { manifest, manifestSha256, manifestKey, report };
}

async function packShards(options: PackOptions, tally: PackTally, context: PackContext): Promise<ShardEntry[]> {
  const { signal } = context;
  const writer = new ShardWriter({
    shardBytesMax: options.shardBytesMax ?? 64 * 2 ** 20,
    samplesPerShardMax: options.samplesPerShardMax ?? 10_000,
  });
  const entries: ShardEntry[] = [];
  const store = async (shard: FinishedShard | undefined) => {
    if (shard === undefined) return;
    await storeShard(options, shard, signal);
    entries.push(shard.entry);
    tally.shards++;
    tally.bytes += shard.entry.bytes;
    tally.progress();
  };
  const prepared = mapInOrder(itemsOf(options, signal), options.concurrency ?? 4, async (item) => ({
    item,
    outcome: await prepare(item, options, tally.filter, signal),
  }));
  for await (const { item, outcome } of prepared) {
    throwIfAborted(signal);
    if (outcome === null) {
      // Counted by the filter.
    } else if (typeof outcome === 'string') {
      tally.skip(item.name, outcome);
    } else {
      await store(writer.add(outcome));
      tally.packed++;
      if (namesClasses(options.source) && typeof outcome.label === 'string') tally.classes.add(outcome.label);
    }
    if ((tally.packed + tally.skipped) % 100 === 0) tally.progress();
  }
  await store(writer.finish());
  return entries;
}

/** Whether labels are folders' names. */
function namesClasses(source: PackSource): boolean {
  return source.kind === 'folder' && source.labels === 'folder';
}

function itemsOf(options: PackOptions, signal?: AbortSignal): AsyncIterable<SourceItem> | Iterable<SourceItem> {
  const { source } = options;
  const fileBytesMax = options.fileBytesMax ?? FILE_BYTES_MAX;
  switch (source.kind) {
    case 'folder':
      return folderSource({ ...source, fileBytesMax }, signal);
    case 'table':
      return tableSource({ ...source, fileBytesMax }, signal);
    case 'icons':
      return iconSource(source.sets, source);
    case 'tars':
    case 'manifest':
      throw new CoveyError('INTERNAL', 'existing tars are indexed, not packed');
  }
}

/** What is only known of a picture once it is there. */
const SIZE_COLUMNS: ReadonlySet<string> = new Set(['width', 'height']);

/** The picture as it will be stored, the reason why it is left out, or null where the filter does not want it. */
async function prepare(
  item: SourceItem,
  options: PackOptions,
  filter: SampleFilter | undefined,
  signal?: AbortSignal,
): Promise<PackedPicture | string | null> {
  if (item.kind === 'skip') return item.reason;
  try {
    return await preparePicture(item, options, filter, signal);
  } catch (thrown) {
    if (CoveyError.is(thrown, 'DATA_CORRUPT') && typeof thrown.fields['reason'] === 'string')
      return thrown.fields['reason'];
    throw thrown;
  }
}

async function preparePicture(
  item: Candidate,
  options: PackOptions,
  filter: SampleFilter | undefined,
  signal?: AbortSignal,
): Promise<PackedPicture | null> {
  const limits = { pixelsMax: options.pixelsMax ?? PIXELS_MAX_DEFAULT };
  const { captions, captionSources, label, meta, columns } = item;
  const named = { ...meta, caption: captions[0] ?? null, ...(label === undefined ? {} : { label }) };
  // A drawing need not be rendered to be left out; a picture that is broken is to be counted as that.
  const isEarly = item.trusted === true && filter?.where.columns.every((name) => !SIZE_COLUMNS.has(name)) === true;
  if (isEarly && !filter!.keeps({ ...named, ...columns }, item.name)) return null;
  const bytes = await item.load(signal);
  const header = readImageHeader(bytes, limits);
  const { width, height } = header;
  if (!isEarly && filter?.keeps({ ...named, width, height, ...columns }, item.name) === false) return null;
  const described = {
    captions,
    ...(captionSources === undefined ? {} : { captionSources }),
    ...(label === undefined ? {} : { label }),
    ...(meta === undefined ? {} : { meta }),
  };
  const { resize } = options;
  const fits = resize === undefined || Math.min(header.width, header.height) <= resize.shortestSide;
  const asIs = { bytes, extension: header.format === 'jpeg' ? 'jpg' : header.format, width, height, ...described };
  if (fits && item.trusted === true) return asIs;
  // Decoded in full: a picture that is broken half-way is found here rather than by every worker.
  const image = await decodeRgb(bytes, limits);
  if (fits) return asIs;
  const raw = { width: image.width, height: image.height, channels: 3 as const };
  const { data, info } = await sharp(image.pixels, { raw })
    .resize(resize.shortestSide, resize.shortestSide, { fit: 'outside', kernel: 'cubic' })
    .toFormat(resize.format, resize.format === 'png' ? {} : { quality: resize.quality ?? 95 })
    .toBuffer({ resolveWithObject: true });
  const size = { width: info.width, height: info.height };
  return { bytes: data, extension: resize.format === 'jpeg' ? 'jpg' : resize.format, ...size, ...described };
}

async function storeShard(options: PackOptions, shard: FinishedShard, signal?: AbortSignal): Promise<void> {
  const prefix = options.prefix ?? '';
  const call = signal === undefined ? {} : { signal };
  await options.destination.put(prefix + shard.entry.key, shard.tar, call);
  await options.destination.put(prefix + shard.entry.indexKey, shard.index, call);
}
