/**
 * The one error class of covey. Every failure that a caller may act on carries a code, the fields a person needs to
 * see, and the cause. `CoveyError.from(unknown)` is the only way a catch block makes one.
 */

/** What a caller can do about it, not where it came from. Each maps to one gRPC status and one exit code. */
export type ErrorCode =
  | 'INVALID_ARGUMENT' // the caller's input is wrong; retrying changes nothing
  | 'CONFIG_INVALID' // a config file, env or flag is wrong; `fields.problems` lists every problem
  | 'NOT_FOUND' // the named thing does not exist
  | 'ALREADY_EXISTS'
  | 'PRECONDITION_FAILED' // a conditional write lost (object-store CAS): re-read and decide again
  | 'STALE_GENERATION' // fenced: the sender's generation is over; re-join
  | 'ABORTED' // the operation was abandoned for a newer state (a step given up at a generation change)
  | 'CANCELLED' // the caller asked for it; never logged as an error
  | 'TIMEOUT' // a deadline passed; `fields.waitingFor` names whom or what
  | 'UNAVAILABLE' // a peer or server cannot be reached; retrying later may work
  | 'UNAUTHENTICATED' // credentials missing or wrong
  | 'PERMISSION_DENIED'
  | 'RESOURCE_EXHAUSTED' // disk, memory, quota
  | 'DATA_CORRUPT' // a hash, CRC or format check failed
  | 'NON_FINITE' // NaN or Inf in loss or gradients
  | 'UNSUPPORTED' // this build, engine or server cannot do it; the message says what can
  | 'INTERNAL'; // a bug in covey

export type ErrorFields = Readonly<Record<string, unknown>>;

export interface CoveyErrorOptions {
  readonly cause?: unknown;
  /** What the caller should see: names, values, limits. Never secrets. */
  readonly fields?: ErrorFields;
}

export class CoveyError extends Error {
  override readonly name = 'CoveyError';
  readonly code: ErrorCode;
  readonly fields: ErrorFields;

  constructor(code: ErrorCode, message: string, options: CoveyErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.fields = options.fields ?? {};
  }

  /** Wraps anything thrown. A CoveyError passes through unchanged; an abort becomes CANCELLED. */
  static from(thrown: unknown, code: ErrorCode = 'INTERNAL'): CoveyError {
    if (thrown instanceof CoveyError) return thrown;
    if (thrown instanceof Error) {
      const cancelled = thrown.name === 'AbortError';
      const timedOut = thrown.name === 'TimeoutError';
      return new CoveyError(cancelled ? 'CANCELLED' : timedOut ? 'TIMEOUT' : code, thrown.message, { cause: thrown });
    }
    return new CoveyError(code, String(thrown), { cause: thrown });
  }

  /** Is it a CoveyError, of one of `codes` where any are given? */
  static is<C extends ErrorCode = ErrorCode>(
    thrown: unknown,
    ...codes: readonly C[]
  ): thrown is CoveyError & { readonly code: C } {
    return (
      thrown instanceof CoveyError && (codes.length === 0 || (codes as readonly ErrorCode[]).includes(thrown.code))
    );
  }
}

/** Throws the reason of an aborted signal as a CoveyError (CANCELLED unless the reason already is one). */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw CoveyError.from(signal.reason, 'CANCELLED');
}

/** A broken invariant is a bug in covey: fails loudly with what was expected. */
export function assert(condition: unknown, message: string, fields: ErrorFields = {}): asserts condition {
  if (!condition) throw new CoveyError('INTERNAL', `invariant broken: ${message}`, { fields });
}
