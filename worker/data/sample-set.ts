import { createHash } from 'node:crypto';
import { canonicalJson } from '../../common/config/canonical-json.ts';
import type { Dataset, DatasetShard, LocatedSample } from './dataset.ts';
import { lastAtMost, prefixSums } from './prefix-sums.ts';
import type { ShardCache } from './shard-cache.ts';

/** The samples of one dataset within a set. */
export interface SampleRange {
  readonly name: string;
  readonly firstSample: number;
  readonly sampleCount: number;
}

/** What a run trains on: one dataset, or several side by side in one numbering. */
export interface SampleSet {
  /** Identity: what a checkpoint records and a resume compares. */
  readonly sha256: string;
  readonly sampleCount: number;
  /** Names of the labels in order, where the manifests list them, and all the same. */
  readonly classes: readonly string[] | undefined;
  /** The dataset a sample belongs to. */
  rangeOf(sampleIndex: number): SampleRange;
  /** Throws NOT_FOUND for an index outside the set, DATA_CORRUPT where the index of its shard does not verify. */
  locate(sampleIndex: number, signal?: AbortSignal): Promise<LocatedSample>;
}

/** Reads parts of shards. */
export type ShardReader = Pick<ShardCache, 'read'>;

export interface WeightedDataset {
  readonly name: string;
  readonly weight: number;
  readonly dataset: Dataset;
}

/** Names the way a mixture is put together: another way is another identity. */
const MIXTURE_SCHEME = 'covey-mixture-1';

/** Several datasets, their samples numbered one after the other. Ids carry the dataset's name: `<name>:<shard>/<key>`. */
export class DatasetMixture implements SampleSet {
  /** Of the manifests' hashes, the weights and whether samples are drawn with replacement. Names and places do not count. */
  readonly sha256: string;
  readonly sampleCount: number;
  readonly parts: readonly WeightedDataset[];
  readonly #ranges: readonly SampleRange[];
  readonly #firstSamples: Float64Array;

  constructor(parts: readonly WeightedDataset[], options: { readonly replacement: boolean }) {
    this.parts = parts;
    this.#firstSamples = prefixSums(parts.map(({ dataset }) => dataset.sampleCount));
    this.sampleCount = this.#firstSamples[parts.length]!;
    this.#ranges = parts.map(({ name, dataset }, i) => ({
      name,
      firstSample: this.#firstSamples[i]!,
      sampleCount: dataset.sampleCount,
    }));
    const identity = {
      scheme: MIXTURE_SCHEME,
      replacement: options.replacement,
      datasets: parts.map(({ dataset, weight }) => ({ manifest: dataset.sha256, weight })),
    };
    this.sha256 = createHash('sha256').update(canonicalJson(identity)).digest('hex');
  }

  get classes(): readonly string[] | undefined {
    const [first, ...others] = this.parts.map(({ dataset }) => dataset.classes);
    return others.every((one) => JSON.stringify(one) === JSON.stringify(first)) ? first : undefined;
  }

  rangeOf(sampleIndex: number): SampleRange {
    return this.#ranges[lastAtMost(this.#firstSamples, sampleIndex)]!;
  }

  async locate(sampleIndex: number, signal?: AbortSignal): Promise<LocatedSample> {
    const part = lastAtMost(this.#firstSamples, sampleIndex);
    const { dataset, name } = this.parts[part]!;
    const located = await dataset.locate(sampleIndex - this.#firstSamples[part]!, signal);
    return { ...located, sampleIndex, sampleId: `${name}:${located.sampleId}` };
  }
}

/** Each shard through the cache of the store it lies in. */
export class ShardCaches implements ShardReader {
  readonly #caches = new Map<DatasetShard, ShardReader>();

  constructor(parts: readonly { readonly dataset: Dataset; readonly cache: ShardReader }[]) {
    for (const { dataset, cache } of parts) for (const shard of dataset.shards) this.#caches.set(shard, cache);
  }

  read(shard: DatasetShard, offset: number, size: number, signal?: AbortSignal): Promise<Uint8Array> {
    return this.#caches.get(shard)!.read(shard, offset, size, signal);
  }
}
