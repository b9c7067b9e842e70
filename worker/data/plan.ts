import { CoveyError } from '../../common/errors.ts';
import { EpochOrders, type OrderOptions } from './epoch-order.ts';

export interface BatchOptions {
  readonly globalBatch: number;
  /** Fixed micro-batches of a step; divides `globalBatch`. */
  readonly lanes: number;
}

export interface PlanOptions extends OrderOptions, BatchOptions {}

export interface LaneSamples {
  /** Of the lane's first sample. */
  readonly epoch: number;
  /** Indices into the dataset (manifest order), [globalBatch / lanes]. */
  readonly sampleIndices: Uint32Array;
  /**
   * Tells one showing of a sample from another, and keys all randomness of that showing: the epoch, in a mixture that of the sample's
   * dataset; with replacement the number of the draw. [globalBatch / lanes]
   */
  readonly showings: Float64Array;
}

/** The order in which a run sees its samples: a pure function of its options, the same on every machine and at every world size. */
export interface Plan {
  /** Of all datasets. */
  readonly sampleCount: number;
  readonly laneBatch: number;
  readonly lanes: number;
  readonly seed: number;
  /** Samples of one lane of one step (both counted from 0, steps through all epochs). */
  laneSamples(step: number, lane: number): LaneSamples;
}

/** The plan of a single dataset, whose epochs begin with a step. */
export interface EpochPlan extends Plan {
  readonly stepsPerEpoch: number;
  /** Sample at a position of an epoch's order, 0 <= position < sampleCount. */
  sampleAt(epoch: number, position: number): number;
  /** Shards in the order in which the epoch first needs them. */
  shardOrder(epoch: number): Uint32Array;
}

/**
 * Step s takes positions [s·G, (s+1)·G) of its epoch's order (epoch-order.ts) and lane l the l-th slice of them. The last samples of an
 * epoch that do not fill a batch are dropped (fewer than G, and other ones in every epoch), so no sample is seen twice in an epoch.
 *
 * Any step is reached in O(log shards) once its epoch's shard order is known (O(shards), kept for the newest epochs).
 * Throws INVALID_ARGUMENT where the numbers do not fit.
 */
export function createPlan(options: PlanOptions): EpochPlan {
  const sampleCount = checkedSampleCount(options);
  const { globalBatch, lanes, seed, replacement = false } = options;
  const laneBatch = globalBatch / lanes;
  const stepsPerEpoch = Math.floor(sampleCount / globalBatch);
  const orders = new EpochOrders(options);
  return {
    stepsPerEpoch,
    sampleCount,
    laneBatch,
    lanes,
    seed,
    sampleAt: (epoch, position) => orders.of(epoch).sampleAt(position),
    shardOrder: (epoch) => orders.of(epoch).shards.slice(),
    laneSamples(step, lane) {
      assertPlace(step, lane, lanes);
      const epoch = Math.floor(step / stepsPerEpoch);
      const first = (step % stepsPerEpoch) * globalBatch + lane * laneBatch;
      const firstDraw = step * globalBatch + lane * laneBatch;
      const order = orders.of(epoch);
      return {
        epoch,
        sampleIndices: Uint32Array.from({ length: laneBatch }, (_, i) => order.sampleAt(first + i)),
        showings: Float64Array.from({ length: laneBatch }, (_, i) => (replacement ? firstDraw + i : epoch)),
      };
    },
  };
}

/** @throws CoveyError INVALID_ARGUMENT for a step or a lane that no plan has */
export function assertPlace(step: number, lane: number, lanes: number): void {
  if (Number.isInteger(step) && step >= 0 && Number.isInteger(lane) && lane >= 0 && lane < lanes) return;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot plan a lane: step ${step}, lane ${lane} of ${lanes} is out of range`,
  );
}

/** What no plan can do with these numbers. */
export function batchProblems({
  globalBatch,
  lanes,
  blockShards,
}: BatchOptions & Pick<OrderOptions, 'blockShards'>): string[] {
  const problems: string[] = [];
  for (const [name, value] of Object.entries({ globalBatch, lanes, blockShards })) {
    if (!Number.isInteger(value) || value < 1) problems.push(`${name} must be a positive integer, is ${value}`);
  }
  if (globalBatch % lanes !== 0) problems.push(`lanes must divide globalBatch (${globalBatch}), is ${lanes}`);
  return problems;
}

function checkedSampleCount(options: PlanOptions): number {
  const { shardSampleCounts, globalBatch } = options;
  const sampleCount = shardSampleCounts.reduce((sum, count) => sum + count, 0);
  const problems = batchProblems(options);
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
