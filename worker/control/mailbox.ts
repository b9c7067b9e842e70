import { CoveyError } from '../../common/errors.ts';

/** Holds the newest value only: whoever reads late skips what is out of date. */
export class Mailbox<T> {
  #value: T | undefined;
  #wake: (() => void) | undefined;

  put(value: T): void {
    this.#value = value;
    this.#wake?.();
  }

  /** The newest unread value; waits for one. Rejects with CANCELLED when the signal aborts. */
  async take(signal: AbortSignal): Promise<T> {
    while (this.#value === undefined) {
      if (signal.aborted) throw CoveyError.from(signal.reason, 'CANCELLED');
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          signal.removeEventListener('abort', wake);
          resolve();
        };
        this.#wake = wake;
        signal.addEventListener('abort', wake, { once: true });
      });
      this.#wake = undefined;
    }
    const value = this.#value;
    this.#value = undefined;
    return value;
  }
}
