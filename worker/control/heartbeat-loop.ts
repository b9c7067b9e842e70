import { CoveyError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';

/** What a heartbeat says; see HeartbeatRequest in worker_service.proto. */
export interface HeartbeatOutcome<A> {
  readonly assignment: A | undefined;
}

export interface HeartbeatOptions {
  readonly intervalMs: number;
  /** Deadline of one heartbeat; shorter than the lease, so that a lost one is repeated in time. */
  readonly timeoutMs: number;
}

export interface HeartbeatModules<A> {
  readonly beat: (signal: AbortSignal) => Promise<HeartbeatOutcome<A>>;
  readonly onAssignment: (assignment: A) => void;
  /** The coordinator no longer knows this member (its lease ran out while it was frozen or cut off). */
  readonly onEvicted: (error: CoveyError) => void;
  readonly logger: Logger;
}

/**
 * Sends heartbeats until the signal aborts. Losing the coordinator is not an error: training goes on, and the loop says so once
 * and again when it is back.
 */
export class HeartbeatLoop<A> {
  readonly #options: HeartbeatOptions;
  readonly #modules: HeartbeatModules<A>;
  #wake: (() => void) | undefined;
  #inFlight: AbortController | undefined;
  #again = false;
  #lost = false;

  constructor(options: HeartbeatOptions, modules: HeartbeatModules<A>) {
    this.#options = options;
    this.#modules = modules;
  }

  /** Sends the next heartbeat at once: something changed that the coordinator waits for. One that is on its way carries the old
   * state and may be held at the other end, so it is given up. */
  beatNow(): void {
    this.#again = true;
    this.#inFlight?.abort(new CoveyError('CANCELLED', 'superseded by a newer heartbeat'));
    this.#wake?.();
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      this.#again = false;
      await this.#beatOnce(signal);
      if (!this.#again) await this.#pause(signal);
    }
  }

  async #beatOnce(signal: AbortSignal): Promise<void> {
    const superseded = new AbortController();
    this.#inFlight = superseded;
    try {
      const timeout = AbortSignal.timeout(this.#options.timeoutMs);
      const { assignment } = await this.#modules.beat(AbortSignal.any([signal, superseded.signal, timeout]));
      if (this.#lost) this.#modules.logger.info('coordinator is back');
      this.#lost = false;
      if (assignment) this.#modules.onAssignment(assignment);
    } catch (thrown) {
      if (signal.aborted || superseded.signal.aborted) return;
      const error = CoveyError.from(thrown);
      if (CoveyError.is(error, 'NOT_FOUND', 'STALE_GENERATION')) return this.#modules.onEvicted(error);
      if (!this.#lost)
        this.#modules.logger.warn({ reason: error.message }, 'coordinator does not answer; training goes on');
      this.#lost = true;
    } finally {
      this.#inFlight = undefined;
    }
  }

  #pause(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(done, this.#options.intervalMs);
      this.#wake = done;
      signal.addEventListener('abort', done, { once: true });
    });
  }
}
