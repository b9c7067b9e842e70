import grpc from '@grpc/grpc-js';
import type { Clock } from '../common/clock.ts';
import { CoveyError, throwIfAborted } from '../common/errors.ts';
import { RandomStream } from '../common/random.ts';
import { fromStatus } from './status.ts';

/** Deadline of a call over all its attempts, where the caller names none. */
export const CALL_TIMEOUT_MS = 10_000;
const RETRY_PAUSE_MIN_MS = 50;
const RETRY_PAUSE_MAX_MS = 1_000;

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Deadline over all attempts. Default CALL_TIMEOUT_MS. */
  readonly timeoutMs?: number;
}

export interface ClientOptions {
  /** host:port */
  readonly address: string;
  /** Deadline of a call where the caller names none. Default CALL_TIMEOUT_MS. */
  readonly timeoutMs?: number;
  /** Default: no TLS. */
  readonly credentials?: grpc.ChannelCredentials;
}

export interface ClientModules {
  readonly clock: Clock;
}

/** A dead connection is noticed within 15 s, and a coordinator that comes back within about a second. */
export const CHANNEL_OPTIONS: grpc.ChannelOptions = {
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 5_000,
  'grpc.keepalive_permit_without_calls': 1,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 500,
  // Retries are made here, where they know what is idempotent.
  'grpc.enable_retries': 0,
};

/** Starts a generated client's method with its request. */
export type StartCall<Response> = (
  metadata: grpc.Metadata,
  options: grpc.CallOptions,
  callback: grpc.requestCallback<Response>,
) => grpc.ClientUnaryCall;

/** Makes unary calls that end: by an answer, an error as CoveyError, the deadline (TIMEOUT) or the signal (CANCELLED). */
export class UnaryCaller {
  readonly #options: ClientOptions;
  readonly #clock: Clock;
  readonly #jitter: RandomStream;

  constructor(options: ClientOptions, modules: ClientModules) {
    this.#options = options;
    this.#clock = modules.clock;
    this.#jitter = new RandomStream('grpc-retry', options.address, process.pid);
  }

  get address(): string {
    return this.#options.address;
  }

  /** `name` is for messages. Every method of covey.v1 may be repeated: it names its subject (incarnation, step, request_id), so
   * UNAVAILABLE is retried with exponential backoff and full jitter until the deadline. */
  async call<Response>(name: string, start: StartCall<Response>, options: CallOptions = {}): Promise<Response> {
    const timeoutMs = options.timeoutMs ?? this.#options.timeoutMs ?? CALL_TIMEOUT_MS;
    const deadlineMs = this.#clock.now() + timeoutMs;
    for (let pauseMaxMs = RETRY_PAUSE_MIN_MS; ; pauseMaxMs = Math.min(pauseMaxMs * 2, RETRY_PAUSE_MAX_MS)) {
      throwIfAborted(options.signal);
      try {
        return await this.#attempt(start, Math.max(1, deadlineMs - this.#clock.now()), options.signal);
      } catch (thrown) {
        if (options.signal?.aborted) throw CoveyError.from(options.signal.reason, 'CANCELLED');
        const error = fromStatus(thrown, name, this.address);
        const pauseMs = this.#jitter.uniform(RETRY_PAUSE_MIN_MS / 2, pauseMaxMs);
        if (error.code !== 'UNAVAILABLE' || this.#clock.now() + pauseMs >= deadlineMs) throw error;
        await this.#clock.sleep(pauseMs, options.signal).catch((reason: unknown) => {
          throw CoveyError.from(reason, 'CANCELLED');
        });
      }
    }
  }

  #attempt<Response>(
    start: StartCall<Response>,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Response> {
    return new Promise((resolve, reject) => {
      // gRPC deadlines are wall-clock times of the system, whatever clock decides here.
      const deadline = Date.now() + timeoutMs;
      const onAbort = () => call.cancel();
      const call = start(new grpc.Metadata(), { deadline }, (error, value) => {
        signal?.removeEventListener('abort', onAbort);
        if (error) reject(error);
        else resolve(value as Response);
      });
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }
}
