import { LRUCache } from 'lru-cache';
import type { z } from 'zod';
import { CoveyError, throwIfAborted } from '../../common/errors.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import {
  type DatasetManifest,
  datasetManifestSchema,
  type IndexedSample,
  type ShardEntry,
  type ShardIndex,
  shardIndexSchema,
} from './manifest.ts';
import type { SampleRange, SampleSet } from './sample-set.ts';
import { sha256Hex } from './sha256.ts';

/** Samples whose index entries are kept in memory: about 300 bytes each. */
const INDEXED_SAMPLES_MAX = 4_000_000;

/** One sample with the place of its bytes. */
export interface LocatedSample {
  /** Position in the dataset, manifest order. */
  readonly sampleIndex: number;
  /** Unique in the dataset: `<shard>/<key>`; what logs and step records name. */
  readonly sampleId: string;
  readonly shard: DatasetShard;
  readonly record: IndexedSample;
}

export interface DatasetShard extends ShardEntry {
  readonly index: number;
  /** Key in the store, the manifest's folder included. */
  readonly storeKey: string;
  readonly firstSample: number;
}

/** Splits a manifest's URL into the store to open and the key in it: `s3://b/data/manifest.json` → `s3://b/data`, `manifest.json`. */
export function splitManifestUrl(url: string): { readonly storeUrl: string; readonly key: string } {
  const slash = url.lastIndexOf('/');
  const key = url.slice(slash + 1);
  if (slash < 0 || key === '' || !url.includes('://')) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot read a dataset: not the URL of a manifest: ${url}; give file:///…/manifest.json or s3://…`,
    );
  }
  return { storeUrl: url.slice(0, slash), key };
}

/** A packed dataset. Indices are read when a shard is first needed, checked against the manifest, and kept. */
export class Dataset implements SampleSet {
  readonly manifest: DatasetManifest;
  /** SHA-256 of the manifest's bytes: the identity of the dataset. */
  readonly sha256: string;
  readonly store: ObjectStore;
  readonly shards: readonly DatasetShard[];
  readonly #indices = new LRUCache<number, Promise<ShardIndex>>({
    maxSize: INDEXED_SAMPLES_MAX,
    sizeCalculation: () => 1,
  });

  constructor(
    options: { readonly manifest: DatasetManifest; readonly sha256: string; readonly folder: string },
    modules: { readonly store: ObjectStore },
  ) {
    this.manifest = options.manifest;
    this.sha256 = options.sha256;
    this.store = modules.store;
    let firstSample = 0;
    this.shards = options.manifest.shards.map((entry, index) => {
      const shard = {
        ...entry,
        index,
        storeKey: options.folder + entry.key,
        indexKey: options.folder + entry.indexKey,
        firstSample,
      };
      firstSample += entry.samples;
      return shard;
    });
    if (firstSample !== options.manifest.sampleCount) {
      throw new CoveyError(
        'DATA_CORRUPT',
        `Cannot use the dataset manifest: shards hold ${firstSample} samples, sampleCount says ${options.manifest.sampleCount}`,
      );
    }
  }

  get sampleCount(): number {
    return this.manifest.sampleCount;
  }

  get shardSampleCounts(): number[] {
    return this.shards.map((shard) => shard.samples);
  }

  get classes(): readonly string[] | undefined {
    return this.manifest.classes;
  }

  /** All of it. */
  rangeOf(_sampleIndex: number): SampleRange {
    return { name: this.manifest.name, firstSample: 0, sampleCount: this.sampleCount };
  }

  shardOf(sampleIndex: number): DatasetShard {
    let low = 0;
    let high = this.shards.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.shards[middle]!.firstSample <= sampleIndex) low = middle;
      else high = middle - 1;
    }
    return this.shards[low]!;
  }

  /** Throws NOT_FOUND for an index outside the dataset, DATA_CORRUPT (naming the index) where the shard's index does not verify. */
  async locate(sampleIndex: number, signal?: AbortSignal): Promise<LocatedSample> {
    if (!Number.isInteger(sampleIndex) || sampleIndex < 0 || sampleIndex >= this.sampleCount) {
      throw new CoveyError('NOT_FOUND', `Cannot find sample ${sampleIndex}: the dataset has ${this.sampleCount}`);
    }
    const shard = this.shardOf(sampleIndex);
    const index = await this.shardIndex(shard, signal);
    const record = index.samples[sampleIndex - shard.firstSample]!;
    return { sampleIndex, sampleId: `${shard.key}/${record.key}`, shard, record };
  }

  /** All samples in order, for evaluation and tokenizer training. */
  async *samples(signal?: AbortSignal): AsyncGenerator<LocatedSample> {
    for (let i = 0; i < this.sampleCount; i++) yield await this.locate(i, signal);
  }

  /** One shard's index, verified. Concurrent callers share one read, which is why the signal of one does not end it. */
  async shardIndex(shard: DatasetShard, signal?: AbortSignal): Promise<ShardIndex> {
    throwIfAborted(signal);
    let pending = this.#indices.get(shard.index);
    if (pending === undefined) {
      pending = this.#readIndex(shard);
      this.#indices.set(shard.index, pending, { size: shard.samples });
      // A failed read must be tried again by the next caller.
      pending.catch(() => this.#indices.delete(shard.index));
    }
    return pending;
  }

  async #readIndex(shard: DatasetShard): Promise<ShardIndex> {
    const { bytes } = await this.store.get(shard.indexKey);
    const sha256 = sha256Hex(bytes);
    if (sha256 !== shard.indexSha256) {
      throw new CoveyError(
        'DATA_CORRUPT',
        `Cannot use shard index ${shard.indexKey}: SHA-256 is ${sha256}, the manifest says ${shard.indexSha256}; pack the dataset again`,
        {
          fields: { shard: shard.key, indexKey: shard.indexKey },
        },
      );
    }
    const index = parseJson(shardIndexSchema, bytes, `shard index ${shard.indexKey}`);
    const beyond = index.samples.find((sample) =>
      Object.values(sample.files).some(([offset, size]) => offset + size > shard.bytes),
    );
    if (index.samples.length !== shard.samples || beyond !== undefined) {
      throw new CoveyError(
        'DATA_CORRUPT',
        `Cannot use shard index ${shard.indexKey}: it does not fit its shard (${index.samples.length} samples, manifest says ${shard.samples}${beyond === undefined ? '' : `; ${beyond.key} lies beyond the end`})`,
      );
    }
    return index;
  }
}

/**
 * Reads and checks a manifest. Throws NOT_FOUND where there is none, DATA_CORRUPT where it is not one (every problem is named)
 * or its hash is not `expectedSha256`.
 */
export async function openDataset(
  store: ObjectStore,
  manifestKey: string,
  options: { readonly expectedSha256?: string; readonly signal?: AbortSignal } = {},
): Promise<Dataset> {
  const { bytes } = await store.get(manifestKey, options.signal === undefined ? {} : { signal: options.signal });
  const sha256 = sha256Hex(bytes);
  if (options.expectedSha256 !== undefined && sha256 !== options.expectedSha256) {
    throw new CoveyError(
      'DATA_CORRUPT',
      `Cannot use dataset ${store.url}/${manifestKey}: SHA-256 is ${sha256}, expected ${options.expectedSha256}: it is not the dataset this run began with`,
      {
        fields: { manifestKey, sha256, expectedSha256: options.expectedSha256 },
      },
    );
  }
  const manifest = parseJson(datasetManifestSchema, bytes, `dataset manifest ${store.url}/${manifestKey}`, (value) =>
    expectSamples(value, `${store.url}/${manifestKey}`),
  );
  const folder = manifestKey.slice(0, manifestKey.lastIndexOf('/') + 1);
  return new Dataset({ manifest, sha256, folder }, { store });
}

/** A dataset of nothing is no broken one, and better said in other words. */
function expectSamples(manifest: unknown, url: string): void {
  if (!(manifest instanceof Object && 'sampleCount' in manifest && manifest.sampleCount === 0)) return;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot use dataset ${url}: it has no samples; pack it again, from a source that has some`,
    { fields: { url } },
  );
}

function parseJson<Schema extends z.ZodType>(
  schema: Schema,
  bytes: Uint8Array,
  what: string,
  check?: (value: unknown) => void,
): z.infer<Schema> {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (thrown) {
    throw new CoveyError('DATA_CORRUPT', `Cannot read ${what}: it is not JSON`, { cause: thrown });
  }
  check?.(value);
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || '(top)'}: ${issue.message}`);
  throw new CoveyError('DATA_CORRUPT', `Cannot read ${what}: ${problems.slice(0, 5).join('; ')}`, {
    fields: { problems },
  });
}
