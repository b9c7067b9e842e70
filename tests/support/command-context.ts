import { Writable } from 'node:stream';
import type { CommandContext } from '../../cli/context.ts';
import { Output } from '../../cli/output.ts';
import { systemClock } from '../../common/clock.ts';
import { silentLogger } from '../../common/log.ts';

export interface RecordedContext extends CommandContext {
  /** The command's result, with `json`. */
  result(): Record<string, unknown>;
  /** All that was written for the person so far. */
  said(): string;
  abort(reason?: unknown): void;
}

export interface ContextOptions {
  /** Default false. */
  readonly json?: boolean;
  /** The command looks at the clock to say how far it is: which look is a Ctrl-C. Default: none. */
  readonly interruptAtLook?: number;
}

/** What a command's body gets, with what it says kept. */
export function commandContext({ json = false, interruptAtLook }: ContextOptions = {}): RecordedContext {
  let text = '';
  let result = '';
  const sink = (isResult: boolean) =>
    new Writable({
      write(chunk, _encoding, done) {
        text += String(chunk);
        if (isResult) result += String(chunk);
        done();
      },
    });
  const controller = new AbortController();
  let looks = 0;
  const now = () => {
    if (++looks === interruptAtLook) controller.abort();
    return systemClock.now();
  };
  return {
    output: new Output({ json, quiet: false, color: false }, { stdout: sink(true), stderr: sink(false) }),
    coordinator: '127.0.0.1:1',
    env: process.env,
    clock: { ...systemClock, now },
    logger: silentLogger,
    signal: controller.signal,
    said: () => text,
    result: () => JSON.parse(result) as Record<string, unknown>,
    abort: (reason) => controller.abort(reason),
  };
}
