import type { IncomingHttpHeaders } from 'node:http';
import type { Readable } from 'node:stream';
import { Client } from 'minio';
import { Agent, request as httpRequest } from 'undici';
import type { Clock } from '../clock.ts';
import { CoveyError, throwIfAborted } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { StoreMetrics } from '../metrics/store-metrics.ts';
import type { RandomStream } from '../random.ts';
import { type RetryPolicy, retry } from '../retry.ts';
import { classifyS3Error, fromNetworkError, fromS3Response, transientError } from './s3-errors.ts';
import type { S3Settings } from './s3-settings.ts';
import { parseS3Error } from './s3-xml.ts';

/** Every wait and every queue of an S3 store, with its default. */
export interface S3Limits {
  /** Open sockets to the server. Default 32. */
  readonly socketsMax: number;
  /** Reaching the server. Default 5 000. */
  readonly connectTimeoutMs: number;
  /** Silence on a connection: no header, or no next byte of the body. Default 15 000. */
  readonly idleTimeoutMs: number;
  /** One attempt, plus its bytes at `bytesPerSecondMin`. Default 30 000. */
  readonly attemptTimeoutMs: number;
  /** Slower than this is treated as stalled. Default 256 KiB/s. */
  readonly bytesPerSecondMin: number;
  /** A call with all its retries, where the caller names no timeout. Default 120 000, plus its bytes at `bytesPerSecondMin`. */
  readonly callTimeoutMs: number;
  readonly retry: RetryPolicy;
  /** Bodies above this go up in parts. Default 16 MiB. */
  readonly singlePutBytesMax: number;
  /** Size of a part or of a ranged read of a large object. At least 5 MiB on AWS. Default 8 MiB. */
  readonly partBytes: number;
  /** Parts in flight for one object. Default 4. */
  readonly partsInFlightMax: number;
}

export const DEFAULT_S3_LIMITS: S3Limits = {
  socketsMax: 32,
  connectTimeoutMs: 5_000,
  idleTimeoutMs: 15_000,
  attemptTimeoutMs: 30_000,
  bytesPerSecondMin: 256 * 1024,
  callTimeoutMs: 120_000,
  retry: { attemptsMax: 8, delayBaseMs: 100, delayMaxMs: 5_000 },
  singlePutBytesMax: 16 * 2 ** 20,
  partBytes: 8 * 2 ** 20,
  partsInFlightMax: 4,
};

export type S3Operation =
  | 'get'
  | 'head'
  | 'put'
  | 'delete'
  | 'list'
  | 'upload_start'
  | 'upload_part'
  | 'upload_complete'
  | 'upload_abort';

export interface S3Request {
  readonly operation: S3Operation;
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE';
  /** Whole key in the bucket; empty for the bucket itself. */
  readonly objectName: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

export interface S3Response {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Readable;
}

export interface S3CallOptions {
  readonly signal?: AbortSignal;
  /** Clock milliseconds; see `deadlineAtMs()`. */
  readonly deadlineAtMs: number;
  /** Bytes that an attempt may move, for its deadline. Default: the request's body. */
  readonly bytesExpected?: number;
  readonly onRetry?: (error: unknown) => void;
}

export interface S3TransportModules {
  readonly clock: Clock;
  readonly random: Pick<RandomStream, 'uniform'>;
  readonly logger: Logger;
  readonly metrics?: StoreMetrics;
}

const SIGNED_FOR_SECONDS = 3600;
/** Error bodies are small; a proxy's page is cut. */
const TEXT_BYTES_MAX = 16 * 2 ** 20;

/**
 * HTTP to one bucket: `minio` signs each request (a presigned URL), undici moves the bytes. That gives what the minio client
 * lacks: a deadline per attempt and per call, abort signals, retries on socket errors, conditions on every request.
 */
export class S3Transport {
  readonly settings: S3Settings;
  readonly bucket: string;
  readonly limits: S3Limits;
  readonly #signer: Client;
  readonly #agent: Agent;
  readonly #modules: S3TransportModules;
  #closed = false;

  constructor(
    options: { readonly settings: S3Settings; readonly bucket: string; readonly limits: S3Limits },
    modules: S3TransportModules,
  ) {
    this.settings = options.settings;
    this.bucket = options.bucket;
    this.limits = options.limits;
    this.#modules = modules;
    this.#signer = createSigner(options.settings);
    this.#agent = new Agent({
      connections: options.limits.socketsMax,
      connect: { timeout: options.limits.connectTimeoutMs },
      headersTimeout: options.limits.idleTimeoutMs,
      bodyTimeout: options.limits.idleTimeoutMs,
      keepAliveTimeout: 10_000,
    });
  }

  /** When a call that starts now must be over. */
  deadlineAtMs(timeoutMs: number | undefined, bytes = 0): number {
    return this.#modules.clock.now() + (timeoutMs ?? this.limits.callTimeoutMs + this.#transferMs(bytes));
  }

  /**
   * Sends the request until an attempt succeeds; `consume` reads the body within the attempt. Throws the last error: transient
   * ones as UNAVAILABLE (DATA_CORRUPT where bodies kept coming back wrong) with the number of attempts.
   */
  async call<T>(
    makeRequest: () => S3Request,
    consume: (response: S3Response) => Promise<T>,
    options: S3CallOptions,
  ): Promise<T> {
    const { clock, random, logger, metrics } = this.#modules;
    const startedAtMs = clock.now();
    let attempts = 0;
    try {
      return await retry(
        () => {
          attempts++;
          return this.#attempt(makeRequest(), consume, options);
        },
        {
          policy: this.limits.retry,
          classify: classifyS3Error,
          deadlineAtMs: options.deadlineAtMs,
          ...(options.signal ? { signal: options.signal } : {}),
          onRetry: ({ error, delayMs, reason, failures }) => {
            const { operation, objectName } = makeRequest();
            metrics?.retries.inc({ op: operation, reason });
            logger.debug(
              { operation, objectName, reason, failures, delayMs, error: String(error) },
              'retrying an S3 request',
            );
            options.onRetry?.(error);
          },
        },
        { clock, random },
      );
    } catch (thrown) {
      throw this.#giveUp(thrown, attempts, clock.now() - startedAtMs);
    }
  }

  /** Reads a whole small text body. */
  async text(response: S3Response): Promise<string> {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
      bytes += chunk.length;
      if (bytes > TEXT_BYTES_MAX)
        throw new CoveyError('DATA_CORRUPT', `Cannot read the server's answer: more than ${TEXT_BYTES_MAX} bytes`);
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString('utf8');
  }

  /** Ends calls in flight. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#agent.destroy();
  }

  async #attempt<T>(
    request: S3Request,
    consume: (response: S3Response) => Promise<T>,
    options: S3CallOptions,
  ): Promise<T> {
    if (this.#closed) throw new CoveyError('CANCELLED', `Cannot ${describe(request)}: the store is closed`);
    const { clock, metrics } = this.#modules;
    const target = { ...this.settings, bucket: this.bucket, action: describe(request) };
    const bytes = options.bytesExpected ?? request.body?.length ?? 0;
    const limitMs = Math.max(
      1,
      Math.min(this.limits.attemptTimeoutMs + this.#transferMs(bytes), options.deadlineAtMs - clock.now()),
    );
    const attempt = startAttempt(limitMs, options.signal, target.action);
    const startedAtMs = performance.now();
    let outcome = 'error';
    try {
      const url = await this.#signer.presignedUrl(
        request.method,
        this.bucket,
        request.objectName,
        SIGNED_FOR_SECONDS,
        { ...request.query },
        new Date(clock.now()),
      );
      const response = await httpRequest(url, {
        dispatcher: this.#agent,
        method: request.method,
        // A compressed body would make Content-Length and ranges mean something else.
        headers: { 'accept-encoding': 'identity', ...request.headers },
        body: request.body ?? null,
        signal: attempt.signal,
      });
      outcome = codeLabel(response.statusCode);
      if (request.body) metrics?.bytes.inc({ direction: 'out' }, request.body.length);
      const answer: S3Response = { status: response.statusCode, headers: response.headers, body: response.body };
      if (answer.status >= 300) throw await this.#errorOf(answer, target);
      return await consume(answer);
    } catch (thrown) {
      throwIfAborted(options.signal);
      if (attempt.signal.aborted) {
        outcome = 'timeout';
        throw withProgress(attempt.signal.reason as CoveyError, thrown);
      }
      throw fromNetworkError(thrown, target);
    } finally {
      attempt.end();
      metrics?.requests.inc({ op: request.operation, code: outcome });
      metrics?.requestSeconds.observe({ op: request.operation }, (performance.now() - startedAtMs) / 1000);
    }
  }

  async #errorOf(
    response: S3Response,
    target: { endpoint: string; region: string; bucket: string; action: string },
  ): Promise<CoveyError> {
    const body = await this.text(response);
    const retryAfter = Number(response.headers['retry-after']);
    return fromS3Response(response.status, parseS3Error(body), target, retryAfter > 0 ? retryAfter * 1000 : undefined);
  }

  #transferMs(bytes: number): number {
    return (bytes / this.limits.bytesPerSecondMin) * 1000;
  }

  #giveUp(thrown: unknown, attempts: number, elapsedMs: number): CoveyError {
    const error = CoveyError.from(thrown);
    if (error.fields['transient'] !== true) return error;
    const code = error.code === 'DATA_CORRUPT' ? 'DATA_CORRUPT' : 'UNAVAILABLE';
    return new CoveyError(
      code,
      `${error.message} (gave up after ${attempts} attempts in ${(elapsedMs / 1000).toFixed(1)} s)`,
      {
        cause: error,
        fields: { ...error.fields, attempts, elapsedMs },
      },
    );
  }
}

function createSigner(settings: S3Settings): Client {
  const url = new URL(settings.endpoint);
  const secure = url.protocol === 'https:';
  return new Client({
    endPoint: url.hostname.replace(/^\[|\]$/g, ''),
    port: url.port === '' ? (secure ? 443 : 80) : Number(url.port),
    useSSL: secure,
    accessKey: settings.accessKey,
    secretKey: settings.secretKey,
    // With the region given the signer never asks the server for it.
    region: settings.region,
    pathStyle: settings.pathStyle ?? true,
    ...(settings.sessionToken === undefined ? {} : { sessionToken: settings.sessionToken }),
  });
}

const describe = (request: S3Request) => `${request.operation.replace('_', ' ')} ${request.objectName || 'the bucket'}`;

/** A signal of one attempt: the caller's abort or its own deadline. Not AbortSignal.any, which on Node 20 keeps every listener of a long-lived signal. */
function startAttempt(
  limitMs: number,
  signal: AbortSignal | undefined,
  action: string,
): { readonly signal: AbortSignal; end(): void } {
  const controller = new AbortController();
  const onAbort = () => controller.abort(signal?.reason);
  const timer = setTimeout(() => {
    controller.abort(
      transientError('TIMEOUT', 'timeout', `Cannot ${action}: no complete answer within ${Math.round(limitMs)} ms`, {
        waitingFor: 'the object store',
      }),
    );
  }, limitMs);
  signal?.addEventListener('abort', onAbort, { once: true });
  return {
    signal: controller.signal,
    end: () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    },
  };
}

/** Keeps what a reader noted about its progress when the deadline's own error replaces the reader's. */
function withProgress(timeout: CoveyError, thrown: unknown): CoveyError {
  const progressed = thrown instanceof CoveyError && thrown.fields['progressed'] === true;
  return progressed
    ? new CoveyError(timeout.code, timeout.message, { cause: thrown, fields: { ...timeout.fields, progressed } })
    : timeout;
}

const KNOWN_CODES = new Set([200, 204, 206, 400, 401, 403, 404, 409, 412, 416, 429, 500, 501, 502, 503, 504, 507]);

/** A bounded label: known statuses by number, the rest by class. */
function codeLabel(status: number): string {
  return KNOWN_CODES.has(status) ? String(status) : `${Math.floor(status / 100)}xx`;
}
