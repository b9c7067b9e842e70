import { CoveyError } from '../../common/errors.ts';
import { allocationError, type Engine } from '../../engine/index.ts';
import type { LaneInput } from './lane-encoder.ts';
import type { LaneTrainer } from './lane-trainer.ts';

/** What became of one size. */
export interface MicroBatchTrial {
  readonly microBatch: number;
  /** The most that tensors held at once, weights included; undefined where an allocation failed. */
  readonly peakBytes: number | undefined;
}

export interface FittedMicroBatch {
  readonly microBatch: number;
  /** In the order they were made; the last one fits. */
  readonly trials: readonly MicroBatchTrial[];
}

export interface FitOptions {
  /** Samples of a lane: the first size tried. */
  readonly laneBatch: number;
  /** A size whose peak is above this does not fit either. */
  readonly memoryBytesMax: number | undefined;
}

/** The next size to try: the largest divisor of the lane's samples that is at most half as large. */
export function halved(microBatch: number, laneBatch: number): number {
  for (let size = Math.floor(microBatch / 2); size > 1; size--) if (laneBatch % size === 0) return size;
  return 1;
}

/**
 * The largest of the sizes n, n/2, … whose lane fits: `lane` is taken through forward and backward for each until none of its allocations
 * fails. Lanes stay as they are, so neither the batch nor the loss changes; nobody else takes part. Lanes must be held anew afterwards.
 *
 * @param lane as much work as a lane can be
 * @throws RESOURCE_EXHAUSTED where not even one sample fits
 */
export function fitMicroBatch(
  { laneBatch, memoryBytesMax }: FitOptions,
  { trainer, engine, lane }: { readonly trainer: LaneTrainer; readonly engine: Engine; readonly lane: LaneInput },
): FittedMicroBatch {
  const trials: MicroBatchTrial[] = [];
  for (let microBatch = laneBatch; ; microBatch = halved(microBatch, laneBatch)) {
    trainer.microBatch = microBatch;
    const peakBytes = rehearsalPeak(trainer, engine, lane);
    trials.push({ microBatch, peakBytes });
    if (peakBytes !== undefined && peakBytes <= (memoryBytesMax ?? Number.POSITIVE_INFINITY))
      return { microBatch, trials };
    if (microBatch > 1) continue;
    const reason = peakBytes === undefined ? 'an allocation failed' : `tensors take ${peakBytes} bytes`;
    throw new CoveyError(
      'RESOURCE_EXHAUSTED',
      `Cannot fit one sample into memory: ${reason}, train.memoryBytesMax is ${memoryBytesMax ?? 'not set'}; use train.recompute: blocks, bf16 or a smaller model`,
      { fields: { trials, memoryBytesMax } },
    );
  }
}

function rehearsalPeak(trainer: LaneTrainer, engine: Engine, lane: LaneInput): number | undefined {
  engine.resetPeakMemory();
  try {
    trainer.rehearse(lane);
  } catch (thrown) {
    if (allocationError(thrown).code === 'RESOURCE_EXHAUSTED') return undefined;
    throw thrown;
  }
  return engine.memory().peakBytes;
}
