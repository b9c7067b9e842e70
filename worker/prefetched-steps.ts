import { assert } from '../common/errors.ts';
import type { Logger } from '../common/log.ts';
import { type LaneBuffers, type LaneLoader, sharedLaneBuffers } from './data/lane-loader.ts';
import { type PrefetchedLane, Prefetcher } from './data/prefetcher.ts';
import type { StepSource } from './session-modules.ts';
import type { LoadedStep } from './train/step-loop.ts';

export interface PrefetchedStepsOptions {
  readonly totalSteps: number;
  /** Steps kept loaded beyond the one being computed. */
  readonly prefetchSteps: number;
}

/**
 * Whole steps out of prefetched lanes, in memory shared with the compute thread. The memory grows to the widest range of lanes
 * held so far and is reused from then on.
 */
export class PrefetchedSteps implements StepSource {
  readonly #options: PrefetchedStepsOptions;
  readonly #loader: LaneLoader;
  readonly #logger: Logger;
  readonly #slots: LaneBuffers[] = [];
  #prefetcher: Prefetcher | undefined;
  #retiring: Promise<void> = Promise.resolve();
  #lanes: readonly number[] = [];

  constructor(options: PrefetchedStepsOptions, modules: { readonly loader: LaneLoader; readonly logger: Logger }) {
    this.#options = options;
    this.#loader = modules.loader;
    this.#logger = modules.logger;
  }

  /** Lanes loaded or loading and not yet taken. */
  get queuedLanes(): number {
    return this.#prefetcher?.readyOrLoading ?? 0;
  }

  async seek(fromStep: number, lanes: { readonly begin: number; readonly end: number }): Promise<void> {
    await this.#retire();
    this.#lanes = Array.from({ length: lanes.end - lanes.begin }, (_, index) => lanes.begin + index);
    // One step is being computed while the others are loaded.
    const wanted = this.#lanes.length * (this.#options.prefetchSteps + 1);
    while (this.#slots.length < wanted) this.#slots.push(sharedLaneBuffers(this.#loader.geometry));
    this.#prefetcher = new Prefetcher(
      { slots: this.#slots.slice(0, wanted) },
      { loader: this.#loader, logger: this.#logger },
    );
    this.#prefetcher.seek({ step: fromStep, lanes: this.#lanes, endStep: this.#options.totalSteps });
  }

  async load(step: number, signal: AbortSignal): Promise<LoadedStep> {
    const prefetcher = this.#prefetcher;
    assert(prefetcher !== undefined, 'a generation was begun before its steps are loaded');
    const taken: PrefetchedLane[] = [];
    try {
      for (const lane of this.#lanes) taken.push(await prefetcher.take(step, lane, signal));
    } catch (thrown) {
      for (const one of taken) prefetcher.release(one);
      throw thrown;
    }
    return {
      step,
      lanes: taken.map(({ lane, buffers }) => ({ lane, ...buffers })),
      consumed: taken.map(({ lane, epoch, sampleIds }) => ({ lane, epoch, sampleIds })),
      replaced: taken.flatMap((one) => one.replaced),
      samplesByDataset: summed(taken),
      release: () => {
        for (const one of taken) prefetcher.release(one);
      },
    };
  }

  async close(): Promise<void> {
    await this.#retire();
  }

  /** Slots may be handed to a new prefetcher only when the old one writes to none of them. */
  async #retire(): Promise<void> {
    const old = this.#prefetcher;
    this.#prefetcher = undefined;
    if (old) this.#retiring = this.#retiring.then(() => old.close());
    await this.#retiring;
  }
}

function summed(lanes: readonly PrefetchedLane[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const { samplesByDataset } of lanes) {
    for (const [name, count] of Object.entries(samplesByDataset)) sums[name] = (sums[name] ?? 0) + count;
  }
  return sums;
}
