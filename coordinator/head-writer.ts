import type { Clock } from '../common/clock.ts';
import { CoveyError } from '../common/errors.ts';
import type { Logger } from '../common/log.ts';
import type { HeadContent } from './core/types.ts';
import type { HeadStore } from './head-store.ts';

const RETRY_PAUSE_MIN_MS = 50;
const RETRY_PAUSE_MAX_MS = 2_000;

export interface HeadWriterModules {
  readonly head: HeadStore;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Everything up to this sequence is durable. */
  readonly onWritten: (sequence: number) => void;
  /** HEAD belongs to another coordinator; nothing more will be written. */
  readonly onLost: (by: string) => void;
  readonly onResult: (result: 'written' | 'lost' | 'retried') => void;
}

/**
 * Writes HEAD one request at a time, for as long as it takes. While one is under way only the newest content waits: it says
 * everything that those before it said, so one write answers them all.
 */
export class HeadWriter {
  readonly #modules: HeadWriterModules;
  readonly #closed = new AbortController();
  #waiting: { readonly sequence: number; readonly content: HeadContent } | null = null;
  #writing: Promise<void> | null = null;
  #durable = 0;

  constructor(modules: HeadWriterModules) {
    this.#modules = modules;
  }

  /** Every write up to this sequence is durable. */
  get durable(): number {
    return this.#durable;
  }

  get busy(): boolean {
    return this.#writing !== null;
  }

  write(sequence: number, content: HeadContent): void {
    if (this.#closed.signal.aborted) return;
    this.#waiting = { sequence, content };
    this.#writing ??= this.#drain().finally(() => {
      this.#writing = null;
    });
  }

  /** Stops retrying; a request under way is waited for. */
  async close(): Promise<void> {
    this.#waiting = null;
    this.#closed.abort(new CoveyError('CANCELLED', 'the coordinator closes'));
    await this.#writing;
  }

  async #drain(): Promise<void> {
    while (this.#waiting !== null) {
      const { sequence, content } = this.#waiting;
      this.#waiting = null;
      const lostTo = await this.#writeUntilKnown(content);
      if (this.#closed.signal.aborted) return;
      if (lostTo !== null) {
        this.#waiting = null;
        this.#modules.onResult('lost');
        return this.#modules.onLost(lostTo);
      }
      this.#durable = sequence;
      this.#modules.onResult('written');
      this.#modules.onWritten(sequence);
    }
  }

  /** Null once durable; the other coordinator's id where the race was lost. */
  async #writeUntilKnown(content: HeadContent): Promise<string | null> {
    for (let pauseMs = RETRY_PAUSE_MIN_MS; ; pauseMs = Math.min(pauseMs * 2, RETRY_PAUSE_MAX_MS)) {
      try {
        await this.#modules.head.write(content, this.#closed.signal);
        return null;
      } catch (thrown) {
        if (this.#closed.signal.aborted) return null;
        const error = CoveyError.from(thrown);
        if (error.code === 'PRECONDITION_FAILED') return String(error.fields['by']);
        this.#modules.onResult('retried');
        this.#modules.logger.warn({ code: error.code, reason: error.message }, 'HEAD not written; trying again');
        await this.#modules.clock.sleep(pauseMs, this.#closed.signal).catch(() => undefined);
        if (this.#closed.signal.aborted) return null;
      }
    }
  }
}
