import { CoveyError, throwIfAborted } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type { LaneBuffers, LaneLoader, LoadedLane } from './lane-loader.ts';

export interface PrefetcherOptions {
  /** The whole memory of prefetching, often shared with the compute thread. At least one per held lane; steps ahead = slots / lanes. */
  readonly slots: readonly LaneBuffers[];
  /** Lanes being filled at once. Default 2: one at work while another waits for bytes. */
  readonly concurrency?: number;
}

/** A filled lane; `release` it when the step that uses it is over. */
export interface PrefetchedLane extends LoadedLane {
  /** Index into the slots given to the prefetcher. */
  readonly slot: number;
  readonly buffers: LaneBuffers;
}

interface Entry {
  readonly step: number;
  readonly lane: number;
  readonly slot: number;
  readonly loaded: Promise<LoadedLane>;
  /** Nobody writes to the slot any more. */
  settled: boolean;
}

/**
 * Keeps the next lanes loaded, in the order (step, lane), in a fixed set of slots. `seek` starts it, and starts it anew at a
 * generation change: what was loaded or loading for other places is dropped, its slots come back when nobody writes to them
 * any more. Who makes it closes it.
 */
export class Prefetcher {
  readonly #slots: readonly LaneBuffers[];
  readonly #concurrency: number;
  readonly #loader: Pick<LaneLoader, 'load'>;
  readonly #logger: Logger;
  readonly #free: number[];
  readonly #taken = new Set<number>();
  #entries: Entry[] = [];
  #waiting: (() => void)[] = [];
  #lanes: readonly number[] = [];
  #next = { step: 0, laneAt: 0 };
  #endStep = 0;
  #loading = 0;
  #era = new AbortController();
  #closed = false;

  constructor(
    options: PrefetcherOptions,
    modules: { readonly loader: Pick<LaneLoader, 'load'>; readonly logger: Logger },
  ) {
    this.#slots = options.slots;
    this.#concurrency = options.concurrency ?? 2;
    this.#loader = modules.loader;
    this.#logger = modules.logger;
    this.#free = options.slots.map((_, slot) => slot);
  }

  /** Lanes filled and not yet taken; for the queue gauge. */
  get readyOrLoading(): number {
    return this.#entries.length;
  }

  /**
   * From here on, loads `lanes` of `step`, `step` + 1, … up to (not including) `endStep`. Slots that were taken stay with their
   * taker until released. Waiting takes of earlier places end with ABORTED.
   */
  seek(to: { readonly step: number; readonly lanes: readonly number[]; readonly endStep?: number }): void {
    this.#assertOpen();
    if (to.lanes.length > this.#slots.length) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot prefetch ${to.lanes.length} lanes a step: there are ${this.#slots.length} slots; give at least one per lane`,
      );
    }
    this.#drop();
    this.#lanes = [...to.lanes];
    this.#next = { step: to.step, laneAt: 0 };
    this.#endStep = to.endStep ?? Number.POSITIVE_INFINITY;
    this.#logger.debug({ step: to.step, lanes: to.lanes }, 'prefetch from');
    this.#pump();
  }

  /**
   * The lane's batch, once loaded. Lanes are to be taken in the order (step, lane), each once; a place that was passed or is not
   * held is INVALID_ARGUMENT. Throws what the loader threw, ABORTED after a seek, CANCELLED by the signal.
   */
  async take(step: number, lane: number, signal?: AbortSignal): Promise<PrefetchedLane> {
    const era = this.#era.signal;
    for (;;) {
      this.#assertOpen();
      throwIfAborted(signal);
      throwIfAborted(era);
      const entry = this.#entries.find((one) => one.step === step && one.lane === lane);
      if (entry !== undefined) return this.#hand(entry, era, signal);
      this.#assertAhead(step, lane);
      await untilAborted(new Promise<void>((resolve) => this.#waiting.push(resolve)), [era, signal]);
    }
  }

  /** Gives a taken slot back. */
  release(loaded: { readonly slot: number }): void {
    if (!this.#taken.delete(loaded.slot))
      throw new CoveyError('INVALID_ARGUMENT', `Cannot release slot ${loaded.slot}: it is not taken`);
    this.#free.push(loaded.slot);
    this.#pump();
  }

  /** Ends all loading; resolves when no slot is written to any more. */
  async close(): Promise<void> {
    if (this.#closed) return;
    const pending = this.#entries.map((entry) => entry.loaded);
    this.#drop();
    this.#closed = true;
    this.#lanes = [];
    await Promise.allSettled(pending);
  }

  async #hand(entry: Entry, era: AbortSignal, signal: AbortSignal | undefined): Promise<PrefetchedLane> {
    const loaded = await untilAborted(entry.loaded, [era, signal]);
    throwIfAborted(era);
    if (!this.#entries.includes(entry))
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot take step ${entry.step}, lane ${entry.lane}: it was taken before`,
      );
    this.#entries.splice(this.#entries.indexOf(entry), 1);
    this.#taken.add(entry.slot);
    return { ...loaded, slot: entry.slot, buffers: this.#slots[entry.slot]! };
  }

  #pump(): void {
    while (!this.#closed && this.#lanes.length > 0 && this.#free.length > 0 && this.#loading < this.#concurrency) {
      const { step, laneAt } = this.#next;
      if (step >= this.#endStep) break;
      const lane = this.#lanes[laneAt]!;
      this.#next = laneAt + 1 < this.#lanes.length ? { step, laneAt: laneAt + 1 } : { step: step + 1, laneAt: 0 };
      this.#start(step, lane, this.#free.shift()!);
    }
    for (const wake of this.#waiting.splice(0)) wake();
  }

  #start(step: number, lane: number, slot: number): void {
    this.#loading++;
    const loaded = this.#loader.load(step, lane, this.#slots[slot]!, this.#era.signal);
    const entry: Entry = { step, lane, slot, loaded, settled: false };
    this.#entries.push(entry);
    const settle = () => {
      entry.settled = true;
      this.#loading--;
      // Dropped meanwhile: only now is the slot safe to hand out.
      if (!this.#entries.includes(entry)) this.#free.push(slot);
      this.#pump();
    };
    // A failure is reported to whoever takes the lane.
    loaded.then(settle, settle);
  }

  #drop(): void {
    const dropped = this.#entries;
    this.#entries = [];
    this.#era.abort(new CoveyError('ABORTED', 'prefetching went on from another step'));
    this.#era = new AbortController();
    // Slots still being filled come back when their load settles.
    for (const entry of dropped) if (entry.settled) this.#free.push(entry.slot);
  }

  #assertAhead(step: number, lane: number): void {
    const laneAt = this.#lanes.indexOf(lane);
    const passed = step < this.#next.step || (step === this.#next.step && laneAt < this.#next.laneAt);
    if (laneAt < 0 || passed || step >= this.#endStep) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot take step ${step}, lane ${lane}: it is not ahead (next to load: step ${this.#next.step}; lanes ${this.#lanes.join(', ')}); seek first`,
      );
    }
  }

  #assertOpen(): void {
    if (this.#closed) throw new CoveyError('CANCELLED', 'the prefetcher is closed');
  }
}

/** Waits for a promise or the first abort, leaving no listener behind. */
async function untilAborted<T>(promise: Promise<T>, signals: readonly (AbortSignal | undefined)[]): Promise<T> {
  const listeners = new AbortController();
  const aborted = new Promise<never>((_, reject) => {
    for (const signal of signals) {
      signal?.addEventListener('abort', () => reject(CoveyError.from(signal.reason, 'CANCELLED')), {
        once: true,
        signal: listeners.signal,
      });
    }
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    listeners.abort();
  }
}
