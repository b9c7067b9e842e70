import { type Clock, systemClock } from '../common/clock.ts';
import { createLogger, type Logger } from '../common/log.ts';
import { Output } from './output.ts';

/** The options every command takes; commander finds them before and after the command's name. */
export interface GlobalOptions {
  readonly json?: boolean;
  /** `--no-color` sets it to false. */
  readonly color?: boolean;
  readonly quiet?: boolean;
  readonly coordinator?: string;
}

export const DEFAULT_COORDINATOR = '127.0.0.1:7070';

/** What an action gets besides its own arguments. */
export interface CommandContext {
  readonly output: Output;
  /** host:port of the coordinator, from --coordinator, COVEY_COORDINATOR or the default. */
  readonly coordinator: string;
  readonly env: Readonly<NodeJS.ProcessEnv>;
  readonly clock: Clock;
  readonly logger: Logger;
  /** Aborted by the first Ctrl-C or SIGTERM. */
  readonly signal: AbortSignal;
}

/** NO_COLOR (any value) and --no-color win over FORCE_COLOR; otherwise colour only on a terminal. */
export function wantsColor(options: GlobalOptions, env: Readonly<NodeJS.ProcessEnv>, isTerminal: boolean): boolean {
  if (options.color === false || (env['NO_COLOR'] ?? '') !== '' || env['TERM'] === 'dumb') return false;
  return isTerminal || (env['FORCE_COLOR'] ?? '') !== '';
}

export function createContext(options: GlobalOptions, signal: AbortSignal): CommandContext {
  const env = process.env;
  const color = wantsColor(options, env, process.stderr.isTTY === true && process.stdout.isTTY === true);
  return {
    output: new Output({ json: options.json ?? false, quiet: options.quiet ?? false, color }, process),
    coordinator: options.coordinator ?? env['COVEY_COORDINATOR'] ?? DEFAULT_COORDINATOR,
    env,
    clock: systemClock,
    logger: createLogger({ level: env['COVEY_LOG_LEVEL'] ?? (options.quiet ? 'error' : 'warn') }),
    signal,
  };
}

/** Services log at `info` unless COVEY_LOG_LEVEL or --quiet say otherwise; commands for people only warn. */
export function serviceLogger(context: CommandContext, role: string): Logger {
  const level = context.env['COVEY_LOG_LEVEL'] ?? (context.output.quiet ? 'warn' : 'info');
  return createLogger({ level, base: { role } });
}
