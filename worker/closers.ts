import { CoveyError } from '../common/errors.ts';
import type { Logger } from '../common/log.ts';

/** What is open, closed in reverse order whatever happens. */
export class Closers {
  readonly #closers: (() => Promise<unknown> | unknown)[] = [];

  add<T>(value: T, close: (value: T) => Promise<unknown> | unknown): T {
    this.#closers.push(() => close(value));
    return value;
  }

  async close(logger: Logger): Promise<void> {
    for (const close of this.#closers.reverse()) {
      try {
        await close();
      } catch (thrown) {
        logger.warn({ reason: CoveyError.from(thrown).message }, 'closing failed');
      }
    }
  }
}
