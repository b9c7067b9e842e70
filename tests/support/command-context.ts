import { Writable } from 'node:stream';
import type { CommandContext } from '../../cli/context.ts';
import { Output } from '../../cli/output.ts';
import { systemClock } from '../../common/clock.ts';
import { silentLogger } from '../../common/log.ts';

export interface RecordedContext extends CommandContext {
  /** All that was written for the person so far. */
  said(): string;
  abort(reason?: unknown): void;
}

/** What a command's body gets, with what it says kept. */
export function commandContext(): RecordedContext {
  let text = '';
  const sink = () =>
    new Writable({
      write(chunk, _encoding, done) {
        text += String(chunk);
        done();
      },
    });
  const controller = new AbortController();
  return {
    output: new Output({ json: false, quiet: false, color: false }, { stdout: sink(), stderr: sink() }),
    coordinator: '127.0.0.1:1',
    env: process.env,
    clock: systemClock,
    logger: silentLogger,
    signal: controller.signal,
    said: () => text,
    abort: (reason) => controller.abort(reason),
  };
}
