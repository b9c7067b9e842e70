import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { CoveyError } from '../../common/errors.ts';

/** A child that answers each line of JSON on its stdin with one line of JSON on its stdout, and ends when stdin closes. */
export class LineProcess {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  readonly #name: string;
  readonly #ended: Promise<void>;

  constructor(name: string, command: string, args: readonly string[], env: Readonly<NodeJS.ProcessEnv>) {
    this.#name = name;
    this.#child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], env });
    this.#ended = new Promise((resolve) => {
      this.#child.once('exit', () => resolve());
      this.#child.once('error', () => resolve());
    });
    // A write to a child that is gone; the next answer says so.
    this.#child.stdin!.on('error', () => {});
    this.#lines = createInterface({ input: this.#child.stdout! })[Symbol.asyncIterator]();
  }

  /** Sends one request and waits for its answer. One at a time. @throws UNAVAILABLE where the child ended before it answered */
  async ask(request: unknown): Promise<unknown> {
    this.#child.stdin!.write(`${JSON.stringify(request)}\n`);
    const answer = await this.#lines.next();
    if (answer.done) throw new CoveyError('UNAVAILABLE', `Cannot go on: ${this.#name} ended before it answered`);
    return JSON.parse(answer.value);
  }

  /** Resolves when the child is gone. */
  async close(): Promise<void> {
    this.#child.stdin!.end();
    await this.#ended;
  }
}
