import type { Command } from 'commander';
import { CoveyError } from '../common/errors.ts';
import { type CommandContext, createContext, type GlobalOptions } from './context.ts';
import { EXIT, type ExitCode, exitCodeOf } from './exit-codes.ts';
import { listenForInterrupt } from './interrupt.ts';
import type { Output } from './output.ts';

/** A handle somebody forgot must not keep a finished command from ending; this long a tidy one may take. */
const LINGER_MS = 3000;

/** A command's body. Its arguments come in the order of the command's definition; optional ones may be undefined. */
export type CommandHandler<Options extends object> = (
  context: CommandContext,
  args: readonly string[],
  options: Options,
) => Promise<ExitCode>;

/**
 * Wraps a command's body for commander: makes the context, listens for Ctrl-C, turns any error into a message with a hint and the
 * documented exit code. The only place that sets the exit code.
 */
export function runCommand<Options extends object>(
  handler: CommandHandler<Options>,
): (...values: unknown[]) => Promise<void> {
  return async (...values) => {
    const command = values.at(-1) as Command;
    const options = command.optsWithGlobals<Options & GlobalOptions>();
    const interrupt = listenForInterrupt();
    const context = createContext(options, interrupt.signal);
    try {
      process.exitCode = await handler(context, command.args, options);
    } catch (thrown) {
      const error = CoveyError.from(thrown);
      reportError(error, context.output);
      process.exitCode = exitCodeOf(error);
    } finally {
      interrupt.release();
      setTimeout(() => process.exit(), LINGER_MS).unref();
    }
  };
}

/** On stderr for people; with --json also as one object on stdout, so that a program reading it need not parse messages. */
export function reportError(error: CoveyError, output: Output): void {
  if (output.json) {
    output.result({ error: { code: error.code, message: error.message, fields: error.fields } }, '');
  }
  if (error.code === 'CANCELLED') {
    output.message('interrupted');
    return;
  }
  output.stderr.write(`${output.colors.red('error:')} ${error.message}\n`);
  const hint = hintFor(error);
  if (hint) output.stderr.write(`${output.colors.dim('hint:')} ${hint}\n`);
  if (error.code === 'INTERNAL')
    output.stderr.write(`${error.stack ?? ''}\nThis is a bug in covey; please report it with the lines above.\n`);
}

function hintFor(error: CoveyError): string | undefined {
  const address = error.fields['address'];
  if (error.code === 'UNAVAILABLE' && typeof address === 'string') {
    return `is a coordinator running at ${address}? Start one with \`covey up\`, or name another with --coordinator`;
  }
  if (error.code === 'NOT_FOUND' && typeof error.fields['run'] === 'string') return '`covey ps` lists the runs';
  // Of a file it is the user's rights that are wrong, which the message says.
  if ((error.code === 'UNAUTHENTICATED' || error.code === 'PERMISSION_DENIED') && !('errno' in error.fields))
    return '`covey doctor` shows which credentials are used';
  return undefined;
}

/** For `process.exitCode` of a run's final state. */
export function exitCodeOfState(state: string): ExitCode {
  return state === 'failed' ? EXIT.failed : EXIT.ok;
}
