import { CoveyError } from '../../common/errors.ts';
import { Permutation } from './permutation.ts';

/** Names the scheme in every key: a change of the order is a change of this string. */
const PLAN_SCHEME = 'covey-plan-1';
/** Epoch orders kept: the present one, the next (prefetch runs ahead) and the last (a step computed again). */
const EPOCHS_KEPT = 3;

export interface PlanOptions {
  /** Identity of the dataset: another manifest is another order. */
  readonly manifestSha256: string;
  /** Samples per shard, in manifest order. */
  readonly shardSampleCounts: readonly number[];
  readonly seed: number;
  readonly globalBatch: number;
  /** Fixed micro-batches of a step; divides `globalBatch`. */
  readonly lanes: number;
  /** Shards whose samples are mixed with each other. */
  readonly blockShards: number;
}

export interface LaneSamples {
  readonly epoch: number;
  /** Indices into the dataset (manifest order), [globalBatch / lanes]. */
  readonly sampleIndices: Uint32Array;
}

/** The order in which a run sees its samples: a pure function of its options, the same on every machine and at every world size. */
export interface Plan {
  readonly stepsPerEpoch: number;
  readonly sampleCount: number;
  readonly laneBatch: number;
  readonly lanes: number;
  readonly seed: number;
  /** Samples of one lane of one step (both counted from 0, steps through all epochs). */
  laneSamples(step: number, lane: number): LaneSamples;
  /** Sample at a position of an epoch's order, 0 <= position < sampleCount. */
  sampleAt(epoch: number, position: number): number;
  /** Shards in the order in which the epoch first needs them. */
  shardOrder(epoch: number): Uint32Array;
}

/**
 * Two levels: shards are permuted, then taken in blocks of `blockShards`; within a block all samples are permuted; blocks follow
 * each other. So a worker needs few shards at a time and still mixes widely. Step s takes positions [s·G, (s+1)·G) of its epoch
 * and lane l the l-th slice of them. The last samples of an epoch that do not fill a batch are dropped (fewer than G, and other
 * ones in every epoch), so no sample is seen twice in an epoch.
 *
 * Any step is reached in O(log shards) once its epoch's shard order is known (O(shards), kept for the newest epochs).
 * Throws INVALID_ARGUMENT where the numbers do not fit.
 */
export function createPlan(options: PlanOptions): Plan {
  const sampleCount = checkedSampleCount(options);
  const { globalBatch, lanes, seed } = options;
  const laneBatch = globalBatch / lanes;
  const stepsPerEpoch = Math.floor(sampleCount / globalBatch);
  const firstSamples = prefixSums(options.shardSampleCounts);
  const epochs = new Map<number, EpochOrder>();

  const epochOrder = (epoch: number): EpochOrder => {
    let order = epochs.get(epoch);
    if (order === undefined) {
      order = new EpochOrder(epoch, options, firstSamples);
      if (epochs.size >= EPOCHS_KEPT) epochs.delete(epochs.keys().next().value!);
      epochs.set(epoch, order);
    }
    return order;
  };

  return {
    stepsPerEpoch,
    sampleCount,
    laneBatch,
    lanes,
    seed,
    sampleAt: (epoch, position) => epochOrder(epoch).sampleAt(position),
    shardOrder: (epoch) => epochOrder(epoch).shards.slice(),
    laneSamples(step, lane) {
      if (!Number.isInteger(step) || step < 0 || !Number.isInteger(lane) || lane < 0 || lane >= lanes) {
        throw new CoveyError(
          'INVALID_ARGUMENT',
          `Cannot plan a lane: step ${step}, lane ${lane} of ${lanes} is out of range`,
        );
      }
      const epoch = Math.floor(step / stepsPerEpoch);
      const first = (step % stepsPerEpoch) * globalBatch + lane * laneBatch;
      const order = epochOrder(epoch);
      return { epoch, sampleIndices: Uint32Array.from({ length: laneBatch }, (_, i) => order.sampleAt(first + i)) };
    },
  };
}

class EpochOrder {
  readonly shards: Uint32Array;
  readonly #epoch: number;
  readonly #options: PlanOptions;
  readonly #firstSamples: Float64Array;
  /** Position at which the i-th shard of the order begins; one more entry than shards. */
  readonly #firstPositions: Float64Array;
  readonly #blocks = new Map<number, Permutation>();

  constructor(epoch: number, options: PlanOptions, firstSamples: Float64Array) {
    const { shardSampleCounts, seed, manifestSha256 } = options;
    const order = new Permutation(shardSampleCounts.length, PLAN_SCHEME, 'shards', manifestSha256, seed, epoch);
    this.shards = Uint32Array.from(shardSampleCounts, (_, i) => order.at(i));
    this.#firstPositions = prefixSums(Array.from(this.shards, (shard) => shardSampleCounts[shard]!));
    this.#epoch = epoch;
    this.#options = options;
    this.#firstSamples = firstSamples;
  }

  sampleAt(position: number): number {
    const { blockShards } = this.#options;
    const block = Math.floor(lastAtMost(this.#firstPositions, position) / blockShards);
    const blockBegin = this.#firstPositions[block * blockShards]!;
    const shuffled = blockBegin + this.#block(block).at(position - blockBegin);
    const slot = lastAtMost(this.#firstPositions, shuffled);
    return this.#firstSamples[this.shards[slot]!]! + (shuffled - this.#firstPositions[slot]!);
  }

  #block(block: number): Permutation {
    let permutation = this.#blocks.get(block);
    if (permutation === undefined) {
      const { blockShards, manifestSha256, seed } = this.#options;
      const end = Math.min((block + 1) * blockShards, this.shards.length);
      const size = this.#firstPositions[end]! - this.#firstPositions[block * blockShards]!;
      permutation = new Permutation(size, PLAN_SCHEME, 'samples', manifestSha256, seed, this.#epoch, block);
      this.#blocks.set(block, permutation);
    }
    return permutation;
  }
}

function checkedSampleCount(options: PlanOptions): number {
  const { shardSampleCounts, globalBatch, lanes, blockShards } = options;
  const sampleCount = shardSampleCounts.reduce((sum, count) => sum + count, 0);
  const problems: string[] = [];
  const positive = (name: string, value: number) => {
    if (!Number.isInteger(value) || value < 1) problems.push(`${name} must be a positive integer, is ${value}`);
  };
  positive('globalBatch', globalBatch);
  positive('lanes', lanes);
  positive('blockShards', blockShards);
  if (globalBatch % lanes !== 0) problems.push(`lanes must divide globalBatch (${globalBatch}), is ${lanes}`);
  if (shardSampleCounts.some((count) => !Number.isInteger(count) || count < 1))
    problems.push('every shard must hold samples');
  if (sampleCount < globalBatch)
    problems.push(`the dataset has ${sampleCount} samples, fewer than one global batch (${globalBatch})`);
  if (sampleCount > 2 ** 32) problems.push(`the dataset has ${sampleCount} samples, more than 2^32`);
  if (problems.length > 0) {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot make a plan: ${problems.join('; ')}`, { fields: { problems } });
  }
  return sampleCount;
}

/** [0, c0, c0+c1, …]. Float64: counts may pass 2^32 before they are checked. */
function prefixSums(counts: readonly number[]): Float64Array {
  const sums = new Float64Array(counts.length + 1);
  counts.forEach((count, i) => {
    sums[i + 1] = sums[i]! + count;
  });
  return sums;
}

/** Index of the last of ascending `starts` (without the closing entry) that is at most `value`. */
function lastAtMost(starts: Float64Array, value: number): number {
  let low = 0;
  let high = starts.length - 2;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (starts[middle]! <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}
