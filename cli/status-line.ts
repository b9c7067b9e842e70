import type { Output } from './output.ts';

const REDRAW_MS_MIN = 100;
/** Without a terminal a line is printed at most this often. */
const PLAIN_MS_MIN = 10_000;

/**
 * One line on stderr that is rewritten in place on a terminal. Without one (a log file, CI) it prints a plain line now and then, so
 * that a log stays readable. Silent with --quiet and --json. `now` is in milliseconds.
 */
export class StatusLine {
  readonly #output: Output;
  readonly #now: () => number;
  readonly #terminal: boolean;
  #drawnAtMs = Number.NEGATIVE_INFINITY;
  #shown = '';

  constructor(output: Output, now: () => number) {
    this.#output = output;
    this.#now = now;
    this.#terminal = output.stderr.isTTY === true;
  }

  /** Shows `text`, not more often than is readable. */
  update(text: string): void {
    if (this.#output.quiet || this.#output.json) return;
    const sinceMs = this.#now() - this.#drawnAtMs;
    if (sinceMs < (this.#terminal ? REDRAW_MS_MIN : PLAIN_MS_MIN)) return;
    this.#drawnAtMs = this.#now();
    if (!this.#terminal) {
      this.#output.stderr.write(`${text}\n`);
      return;
    }
    // Cut to the width: a wrapped line cannot be rewritten in place.
    const width = (this.#output.stderr.columns ?? 80) - 1;
    this.#shown = text.length > width ? `${text.slice(0, width - 1)}…` : text;
    this.#output.stderr.write(`\r\x1b[2K${this.#shown}`);
  }

  /** A lasting line above the status line. */
  print(text: string): void {
    this.clear();
    this.#output.message(text);
    if (this.#shown !== '') this.#output.stderr.write(this.#shown);
  }

  /** Takes the line away; the next update shows it again at once. */
  clear(): void {
    if (!this.#terminal) return;
    if (this.#shown !== '') this.#output.stderr.write('\r\x1b[2K');
    this.#drawnAtMs = Number.NEGATIVE_INFINITY;
  }

  /** Ends the line; what was shown last is gone. */
  close(): void {
    this.clear();
    this.#shown = '';
  }
}
