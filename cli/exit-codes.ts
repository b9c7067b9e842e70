import type { CoveyError } from '../common/errors.ts';

/** What the exit status of every command means. Printed by `covey --help`. */
export const EXIT = {
  ok: 0,
  /** The command did not succeed, or the run it followed failed. */
  failed: 1,
  usage: 2,
  configInvalid: 3,
  unreachable: 4,
  /** Something this machine or the servers lack: a program, a library, a bucket, credentials. */
  precondition: 5,
  interrupted: 130,
} as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];

export const EXIT_CODES_HELP = `
Exit codes:
  0    it worked
  1    the command or the run failed
  2    wrong use: unknown command or option, bad value
  3    the configuration is invalid (every problem is listed)
  4    a server cannot be reached, or a time limit passed
  5    something is missing: nats-server, a library, a bucket, credentials (\`covey doctor\` says what)
  130  interrupted (Ctrl-C); a run that was being followed goes on`;

/** The exit code of an error that ended a command. */
export function exitCodeOf(error: CoveyError): ExitCode {
  switch (error.code) {
    case 'INVALID_ARGUMENT':
      return EXIT.usage;
    case 'CONFIG_INVALID':
      return EXIT.configInvalid;
    case 'UNAVAILABLE':
    case 'TIMEOUT':
      return EXIT.unreachable;
    case 'UNSUPPORTED':
    case 'UNAUTHENTICATED':
    case 'PERMISSION_DENIED':
      return EXIT.precondition;
    case 'CANCELLED':
      return EXIT.interrupted;
    default:
      // A missing server or bucket is a precondition; a missing run or checkpoint is a plain failure.
      return error.code === 'NOT_FOUND' && ('command' in error.fields || 'bucket' in error.fields)
        ? EXIT.precondition
        : EXIT.failed;
  }
}
