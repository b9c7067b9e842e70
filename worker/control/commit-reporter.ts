import type { Clock } from '../../common/clock.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';

/** Reports kept while the coordinator is away; beyond this the oldest are dropped (the weights are the record, not the report). */
const PENDING_MAX = 10_000;
const RETRY_PAUSE_MS = 250;

export interface CommitReporterModules<R> {
  readonly send: (report: R) => Promise<{ readonly diverged: boolean }>;
  /** This worker's weights differ from the committed ones at the same step. */
  readonly onDiverged: (report: R) => void;
  readonly clock: Clock;
  readonly logger: Logger;
}

/** Sends step reports in order, one at a time, retrying while the coordinator is away. Never holds up training. */
export class CommitReporter<R> {
  readonly #modules: CommitReporterModules<R>;
  readonly #pending: R[] = [];
  #sending: Promise<void> | undefined;
  #closed = false;

  constructor(modules: CommitReporterModules<R>) {
    this.#modules = modules;
  }

  report(report: R): void {
    this.#pending.push(report);
    if (this.#pending.length > PENDING_MAX) this.#pending.shift();
    this.#sending ??= this.#drain().finally(() => {
      this.#sending = undefined;
    });
  }

  /** Resolves once everything reported so far was accepted or refused; gives up after `timeoutMs`. */
  async flush(timeoutMs: number): Promise<void> {
    await Promise.race([this.#sending, this.#modules.clock.sleep(timeoutMs)]);
  }

  close(): void {
    this.#closed = true;
    this.#pending.length = 0;
  }

  async #drain(): Promise<void> {
    while (this.#pending.length > 0 && !this.#closed) {
      const report = this.#pending[0]!;
      try {
        const { diverged } = await this.#modules.send(report);
        this.#pending.shift();
        if (diverged) this.#modules.onDiverged(report);
      } catch (thrown) {
        const error = CoveyError.from(thrown);
        if (CoveyError.is(error, 'UNAVAILABLE', 'TIMEOUT', 'ABORTED')) {
          await this.#modules.clock.sleep(RETRY_PAUSE_MS);
          continue;
        }
        // Refused for good, most often because the generation is over: the next one starts from what was applied.
        this.#modules.logger.debug({ code: error.code, reason: error.message }, 'step report refused');
        this.#pending.shift();
      }
    }
  }
}
