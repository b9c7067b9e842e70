import { mixKey, threefry2x32 } from '../../common/random.ts';
import { Permutation } from './permutation.ts';
import { lastAtMost, prefixSums } from './prefix-sums.ts';

/** Names the scheme in every key: a change of the order is a change of this string. */
const PLAN_SCHEME = 'covey-plan-1';
/** Epoch orders kept: the present one, the next (prefetch runs ahead) and the last (a step computed again). */
const EPOCHS_KEPT = 3;

export interface OrderOptions {
  /** Identity of the dataset: another manifest is another order. */
  readonly manifestSha256: string;
  /** Samples per shard, in manifest order. */
  readonly shardSampleCounts: readonly number[];
  readonly seed: number;
  /** Shards whose samples are mixed with each other. */
  readonly blockShards: number;
  /**
   * Every position draws uniformly from the samples of its block: one may come several times in an epoch, or not at all. Default
   * false: each once.
   */
  readonly replacement?: boolean;
}

/** The orders of one dataset, epoch by epoch. */
export class EpochOrders {
  readonly #options: OrderOptions;
  readonly #firstSamples: Float64Array;
  readonly #epochs = new Map<number, EpochOrder>();

  constructor(options: OrderOptions) {
    this.#options = options;
    this.#firstSamples = prefixSums(options.shardSampleCounts);
  }

  of(epoch: number): EpochOrder {
    let order = this.#epochs.get(epoch);
    if (order === undefined) {
      order = new EpochOrder(epoch, this.#options, this.#firstSamples);
      if (this.#epochs.size >= EPOCHS_KEPT) this.#epochs.delete(this.#epochs.keys().next().value!);
      this.#epochs.set(epoch, order);
    }
    return order;
  }
}

/**
 * Two levels: shards are permuted, then taken in blocks of `blockShards`; within a block all samples are permuted (or drawn); blocks
 * follow each other. So a worker needs few shards at a time and still mixes widely. Any position is found in O(log shards).
 */
export class EpochOrder {
  readonly shards: Uint32Array;
  readonly #epoch: number;
  readonly #options: OrderOptions;
  readonly #firstSamples: Float64Array;
  /** Position at which the i-th shard of the order begins; one more entry than shards. */
  readonly #firstPositions: Float64Array;
  readonly #blocks = new Map<number, Permutation>();
  readonly #drawKey: readonly [number, number];
  readonly #drawn = new Uint32Array(2);

  constructor(epoch: number, options: OrderOptions, firstSamples: Float64Array) {
    const { shardSampleCounts, seed, manifestSha256 } = options;
    const order = new Permutation(shardSampleCounts.length, PLAN_SCHEME, 'shards', manifestSha256, seed, epoch);
    this.shards = Uint32Array.from(shardSampleCounts, (_, i) => order.at(i));
    this.#firstPositions = prefixSums(Array.from(this.shards, (shard) => shardSampleCounts[shard]!));
    this.#drawKey = mixKey(PLAN_SCHEME, 'draws', manifestSha256, seed, epoch);
    this.#epoch = epoch;
    this.#options = options;
    this.#firstSamples = firstSamples;
  }

  sampleAt(position: number): number {
    const { blockShards, replacement = false } = this.#options;
    const block = Math.floor(lastAtMost(this.#firstPositions, position) / blockShards);
    const blockBegin = this.#firstPositions[block * blockShards]!;
    const place = replacement ? this.#drawFrom(block, position) : this.#block(block).at(position - blockBegin);
    const shuffled = blockBegin + place;
    const slot = lastAtMost(this.#firstPositions, shuffled);
    return this.#firstSamples[this.shards[slot]!]! + (shuffled - this.#firstPositions[slot]!);
  }

  #blockSize(block: number): number {
    const { blockShards } = this.#options;
    const end = Math.min((block + 1) * blockShards, this.shards.length);
    return this.#firstPositions[end]! - this.#firstPositions[block * blockShards]!;
  }

  #drawFrom(block: number, position: number): number {
    const [k0, k1] = this.#drawKey;
    threefry2x32(k0, k1, position | 0, Math.floor(position / 2 ** 32), this.#drawn);
    const uniform = (this.#drawn[0]! * 2 ** 21 + (this.#drawn[1]! >>> 11)) / 2 ** 53;
    return Math.floor(uniform * this.#blockSize(block));
  }

  #block(block: number): Permutation {
    let permutation = this.#blocks.get(block);
    if (permutation === undefined) {
      const { manifestSha256, seed } = this.#options;
      const size = this.#blockSize(block);
      permutation = new Permutation(size, PLAN_SCHEME, 'samples', manifestSha256, seed, this.#epoch, block);
      this.#blocks.set(block, permutation);
    }
    return permutation;
  }
}
