import { CoveyError } from '../../common/errors.ts';
import { EpochOrders, type OrderOptions } from './epoch-order.ts';
import { assertPlace, type BatchOptions, batchProblems, type Plan } from './plan.ts';
import { prefixSums } from './prefix-sums.ts';
import { Proportions } from './proportions.ts';

export interface MixturePart extends Pick<OrderOptions, 'manifestSha256' | 'shardSampleCounts'> {
  readonly name: string;
  /** Share of the samples of every batch, relative to the other parts' weights. */
  readonly weight: number;
}

export interface MixturePlanOptions extends BatchOptions, Pick<OrderOptions, 'seed' | 'blockShards' | 'replacement'> {
  readonly parts: readonly MixturePart[];
}

/**
 * Several datasets in fixed proportions. The run is one endless row of positions: step s takes [s·G, (s+1)·G), lane l the l-th slice of
 * them. `Proportions` deals them out, so every batch has its exact shares, to within a sample. The k-th position that falls to a dataset of
 * n samples is position k mod n of that dataset's epoch ⌊k/n⌋: each dataset goes through its own orders at its own pace and drops nothing.
 * Sample indices count through the parts in their order.
 *
 * A pure function of its options; any position is found in O(log parts + log shards).
 * Throws INVALID_ARGUMENT where the numbers do not fit.
 */
export function createMixturePlan(options: MixturePlanOptions): Plan {
  const { parts, globalBatch, lanes, seed, blockShards, replacement = false } = options;
  const sizes = parts.map((part) => part.shardSampleCounts.reduce((sum, count) => sum + count, 0));
  const firstSamples = prefixSums(sizes);
  const sampleCount = firstSamples[parts.length]!;
  const proportions = new Proportions(parts.map((part) => part.weight));
  refuseProblems(options, sizes, proportions);
  const orders = parts.map((part) => new EpochOrders({ ...part, seed, blockShards, replacement }));
  const laneBatch = globalBatch / lanes;
  return {
    sampleCount,
    laneBatch,
    lanes,
    seed,
    laneSamples(step, lane) {
      assertPlace(step, lane, lanes);
      const first = step * globalBatch + lane * laneBatch;
      const sampleIndices = new Uint32Array(laneBatch);
      const showings = new Float64Array(laneBatch);
      for (let i = 0; i < laneBatch; i++) {
        const { part, ordinal } = proportions.at(first + i);
        const size = sizes[part]!;
        const epoch = Math.floor(ordinal / size);
        sampleIndices[i] = firstSamples[part]! + orders[part]!.of(epoch).sampleAt(ordinal % size);
        showings[i] = replacement ? ordinal : epoch;
      }
      return { epoch: Math.floor(first / sampleCount), sampleIndices, showings };
    },
  };
}

function refuseProblems(options: MixturePlanOptions, sizes: readonly number[], { weights }: Proportions): void {
  const { parts, globalBatch, replacement = false } = options;
  const problems = batchProblems(options);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const sampleCount = sizes.reduce((sum, size) => sum + size, 0);
  if (sampleCount > 2 ** 32) problems.push(`the mixture has ${sampleCount} samples, more than 2^32`);
  for (const [i, { name }] of parts.entries()) {
    const perBatch = Math.floor((globalBatch * weights[i]!) / total);
    if (!replacement && perBatch > sizes[i]!) {
      problems.push(
        `${name} has ${sizes[i]} samples, its weight gives it ${perBatch} of every batch of ${globalBatch}, so one would come twice in a batch; lower the weight or set data.replacement`,
      );
    }
  }
  if (problems.length > 0) {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot mix datasets: ${problems.join('; ')}`, { fields: { problems } });
  }
}
