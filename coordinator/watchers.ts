import { CoveyError } from '../common/errors.ts';
import type { WatchRunResponse } from '../proto/gen/covey/v1/WatchRunResponse.ts';

/** Messages a slow watcher may fall behind by. */
export const WATCH_QUEUE_MAX = 4_096;
/** Watchers of one run. */
export const WATCHERS_MAX = 256;

interface Watcher {
  readonly queue: WatchRunResponse[];
  wake: (() => void) | null;
  ended: boolean;
  failure: CoveyError | null;
}

/** Hands each message to every watcher, never waiting for one: who falls behind is told so (RESOURCE_EXHAUSTED) and starts again. */
export class Watchers {
  readonly #watchers = new Set<Watcher>();

  publish(message: WatchRunResponse): void {
    for (const watcher of this.#watchers) {
      if (watcher.queue.length >= WATCH_QUEUE_MAX) {
        watcher.failure = new CoveyError(
          'RESOURCE_EXHAUSTED',
          `Cannot keep up: more than ${WATCH_QUEUE_MAX} messages wait to be read; watch again`,
        );
        watcher.queue.length = 0;
      } else if (watcher.failure === null) {
        watcher.queue.push(message);
      }
      watcher.wake?.();
    }
  }

  /** Ends every watch once what was published is read; with `failure` at once, by throwing it. */
  end(failure: CoveyError | null = null): void {
    for (const watcher of this.#watchers) {
      watcher.ended = true;
      watcher.failure ??= failure;
      watcher.wake?.();
    }
  }

  /** Messages published from this call on. Ends with `end`, or quietly when the signal aborts. */
  subscribe(signal: AbortSignal): AsyncGenerator<WatchRunResponse, void, undefined> {
    if (this.#watchers.size >= WATCHERS_MAX) {
      throw new CoveyError('RESOURCE_EXHAUSTED', `Cannot watch: ${WATCHERS_MAX} others watch this run already`);
    }
    const watcher: Watcher = { queue: [], wake: null, ended: false, failure: null };
    this.#watchers.add(watcher);
    const stop = () => {
      this.#watchers.delete(watcher);
      watcher.ended = true;
      watcher.queue.length = 0;
      watcher.wake?.();
    };
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    return this.#read(watcher, () => {
      signal.removeEventListener('abort', stop);
      this.#watchers.delete(watcher);
    });
  }

  async *#read(watcher: Watcher, release: () => void): AsyncGenerator<WatchRunResponse, void, undefined> {
    try {
      for (;;) {
        if (watcher.failure) throw watcher.failure;
        const message = watcher.queue.shift();
        if (message !== undefined) yield message;
        else if (watcher.ended) return;
        else {
          await new Promise<void>((resolve) => {
            watcher.wake = resolve;
          });
          watcher.wake = null;
        }
      }
    } finally {
      release();
    }
  }
}
