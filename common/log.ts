import pino from 'pino';

/**
 * Structured logs on stderr: a fixed message, then fields. error = a person must act; warn = may become an error;
 * info = once per phase; debug = per step. stdout belongs to data.
 */
export type Logger = pino.Logger;

export interface LogOptions {
  readonly level?: string;
  /** Fields on every line: role, run, worker. */
  readonly base?: Readonly<Record<string, unknown>>;
  /** File to append to instead of stderr. */
  readonly file?: string;
}

const REDACTED = ['*.secretKey', '*.accessKey', 'secretKey', 'accessKey', '*.password', '*.token', 'token'];

export function createLogger(options: LogOptions = {}): Logger {
  const destination = pino.destination({ dest: options.file ?? 2, sync: true, mkdir: true });
  return pino(
    {
      level: options.level ?? process.env['COVEY_LOG_LEVEL'] ?? 'info',
      base: { ...options.base },
      redact: { paths: REDACTED, censor: '[redacted]' },
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination,
  );
}

export const silentLogger: Logger = pino({ level: 'silent' });
