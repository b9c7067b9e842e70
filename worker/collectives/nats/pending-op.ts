import { CoveyError } from '../../../common/errors.ts';
import { timeoutError } from '../group-checks.ts';

export interface PendingOpOptions {
  /** For messages: what the operation does, e.g. "All-gather 12". */
  readonly doing: string;
  readonly timeoutMs: number;
  readonly signal: AbortSignal | undefined;
  /** Member ids of the peers it still waits for. */
  readonly waitingFor: () => readonly string[];
  /** Runs once, before `done` settles. On success it may still throw, which rejects. */
  readonly onEnd: (outcome: 'complete' | 'failed') => void;
}

/** An operation in flight: done when every hold is released after `seal`, or when it is rejected, timed out or cancelled. */
export class PendingOp {
  readonly done: Promise<void>;
  readonly #options: PendingOpOptions;
  readonly #timer: NodeJS.Timeout;
  #resolve: () => void = () => {};
  #reject: (error: CoveyError) => void = () => {};
  #holds = 1;
  #ended = false;
  readonly #onAbort = () => this.reject(CoveyError.from(this.#options.signal?.reason, 'CANCELLED'));

  constructor(options: PendingOpOptions) {
    this.#options = options;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#timer = setTimeout(
      () => this.reject(timeoutError(options.doing, options.timeoutMs, options.waitingFor())),
      options.timeoutMs,
    );
    options.signal?.addEventListener('abort', this.#onAbort, { once: true });
    if (options.signal?.aborted) queueMicrotask(this.#onAbort);
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** One more thing to wait for; call the result once. */
  hold(): () => void {
    this.#holds++;
    return () => this.#release();
  }

  /** No holds will be added: it may complete. */
  seal(): void {
    this.#release();
  }

  reject(error: CoveyError): void {
    if (!this.#end('failed')) return;
    this.#reject(error);
  }

  #release(): void {
    this.#holds--;
    if (this.#holds > 0 || this.#ended) return;
    try {
      this.#end('complete');
      this.#resolve();
    } catch (thrown) {
      this.#reject(CoveyError.from(thrown));
    }
  }

  #end(outcome: 'complete' | 'failed'): boolean {
    if (this.#ended) return false;
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener('abort', this.#onAbort);
    this.#options.onEnd(outcome);
    return true;
  }
}
