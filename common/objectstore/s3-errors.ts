import { CoveyError, type ErrorCode, type ErrorFields } from '../errors.ts';
import type { RetryVerdict } from '../retry.ts';
import type { S3ErrorBody } from './s3-xml.ts';

/** What S3's own error codes mean to a caller. Codes that are absent are judged by the HTTP status. */
const CODES: Readonly<Record<string, ErrorCode>> = {
  NoSuchBucket: 'NOT_FOUND',
  NoSuchKey: 'NOT_FOUND',
  NoSuchUpload: 'NOT_FOUND',
  InvalidAccessKeyId: 'UNAUTHENTICATED',
  SignatureDoesNotMatch: 'UNAUTHENTICATED',
  ExpiredToken: 'UNAUTHENTICATED',
  InvalidToken: 'UNAUTHENTICATED',
  MissingAuthenticationToken: 'UNAUTHENTICATED',
  RequestTimeTooSkewed: 'UNAUTHENTICATED',
  AccessDenied: 'PERMISSION_DENIED',
  AllAccessDisabled: 'PERMISSION_DENIED',
  PreconditionFailed: 'PRECONDITION_FAILED',
  NotImplemented: 'UNSUPPORTED',
  QuotaExceeded: 'RESOURCE_EXHAUSTED',
  XMinioStorageFull: 'RESOURCE_EXHAUSTED',
  XMinioAdminBucketQuotaExceeded: 'RESOURCE_EXHAUSTED',
  EntityTooLarge: 'RESOURCE_EXHAUSTED',
  BadDigest: 'DATA_CORRUPT',
  IncompleteBody: 'DATA_CORRUPT',
};

/** Codes that a repetition may cure, whatever their status. */
const TRANSIENT = new Set([
  'BadDigest',
  'IncompleteBody',
  'RequestTimeout',
  'SlowDown',
  'SlowDownRead',
  'SlowDownWrite',
  'InternalError',
  'ServiceUnavailable',
  'OperationAborted',
  'ConditionalRequestConflict',
  'Throttling',
  'TooManyRequests',
]);

const STATUSES: Readonly<Record<number, ErrorCode>> = {
  401: 'UNAUTHENTICATED',
  403: 'PERMISSION_DENIED',
  404: 'NOT_FOUND',
  405: 'UNSUPPORTED',
  412: 'PRECONDITION_FAILED',
  416: 'INVALID_ARGUMENT',
  501: 'UNSUPPORTED',
  507: 'RESOURCE_EXHAUSTED',
};

export interface S3Target {
  readonly endpoint: string;
  readonly region: string;
  readonly bucket: string;
  /** What was tried, e.g. `get runs/a/HEAD`. */
  readonly action: string;
}

/** An error status as a CoveyError. `fields.transient` says whether a repetition may cure it, `fields.reason` why (for metrics). */
export function fromS3Response(
  status: number,
  body: S3ErrorBody | undefined,
  target: S3Target,
  retryAfterMs: number | undefined,
): CoveyError {
  const s3Code = body?.code ?? '';
  const byStatus = status >= 500 || status === 429 || status === 408 || status === 409;
  const permanent = s3Code in CODES && !TRANSIENT.has(s3Code);
  const transient = TRANSIENT.has(s3Code) || (byStatus && !permanent && status !== 501 && status !== 507);
  const code = CODES[s3Code] ?? STATUSES[status] ?? (transient ? 'UNAVAILABLE' : 'INVALID_ARGUMENT');
  const reason =
    status === 409
      ? 'conflict'
      : status === 429 || s3Code.startsWith('SlowDown')
        ? 'throttled'
        : status >= 500
          ? 'server_error'
          : 'other';
  return new CoveyError(code, `Cannot ${target.action}: ${explain(status, s3Code, body, target)}`, {
    fields: {
      httpStatus: status,
      s3Code,
      bucket: target.bucket,
      endpoint: target.endpoint,
      transient,
      reason,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    },
  });
}

function explain(
  status: number,
  s3Code: string,
  body: S3ErrorBody | undefined,
  { bucket, endpoint, region }: S3Target,
): string {
  switch (s3Code) {
    case 'NoSuchBucket':
      return `bucket ${bucket} does not exist at ${endpoint}: create it, or check the bucket in the store URL and COVEY_S3_ENDPOINT`;
    case 'InvalidAccessKeyId':
    case 'SignatureDoesNotMatch':
      return `${endpoint} refused the credentials (${s3Code}): check COVEY_S3_ACCESS_KEY, COVEY_S3_SECRET_KEY and COVEY_S3_REGION (${region})`;
    case 'RequestTimeTooSkewed':
      return `this machine's clock differs too much from ${endpoint}'s: set it right (NTP)`;
    case 'AccessDenied':
      return `${endpoint} denies access to bucket ${bucket}: give this access key read, write, list and delete there`;
    case 'AuthorizationHeaderMalformed':
    case 'AuthorizationQueryParametersError':
    case 'PermanentRedirect':
      return `${endpoint} wants another region than ${region} (${s3Code}): set COVEY_S3_REGION. ${body?.message ?? ''}`.trim();
    default:
      return `${endpoint} answered ${status}${s3Code ? ` ${s3Code}` : ''}${body?.message ? `: ${body.message}` : ''}`;
  }
}

const NETWORK_REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'connection refused',
  ENOTFOUND: 'host name not found',
  EAI_AGAIN: 'host name could not be resolved',
  EHOSTUNREACH: 'host unreachable',
  ENETUNREACH: 'network unreachable',
  UND_ERR_CONNECT_TIMEOUT: 'connecting took too long',
  UND_ERR_HEADERS_TIMEOUT: 'no answer in time',
  UND_ERR_BODY_TIMEOUT: 'the body stalled',
};

/** A failure below HTTP (socket, DNS, TLS, timeout) as a transient CoveyError. CoveyErrors pass. */
export function fromNetworkError(thrown: unknown, target: S3Target): CoveyError {
  if (thrown instanceof CoveyError) return thrown;
  const error = thrown instanceof Error ? thrown : new Error(String(thrown));
  const errno = (error as NodeJS.ErrnoException).code ?? '';
  const timedOut = errno.endsWith('_TIMEOUT');
  return new CoveyError(
    'UNAVAILABLE',
    `Cannot ${target.action}: ${target.endpoint}: ${NETWORK_REASONS[errno] ?? error.message}`,
    {
      cause: thrown,
      fields: {
        endpoint: target.endpoint,
        bucket: target.bucket,
        errno,
        transient: true,
        reason: timedOut ? 'timeout' : 'reset',
      },
    },
  );
}

/** A transient failure that covey itself found: a deadline of one attempt, a body of the wrong length or hash. */
export function transientError(
  code: ErrorCode,
  reason: 'timeout' | 'truncated' | 'corrupt' | 'changed',
  message: string,
  fields: ErrorFields = {},
): CoveyError {
  return new CoveyError(code, message, { fields: { ...fields, transient: true, reason } });
}

/** For `retry`: transient CoveyErrors again, anything else at once. */
export function classifyS3Error(thrown: unknown): RetryVerdict {
  if (!(thrown instanceof CoveyError)) return { retry: false, reason: 'other' };
  const { transient, reason, retryAfterMs, progressed } = thrown.fields;
  return {
    retry: transient === true,
    reason: typeof reason === 'string' ? reason : 'other',
    progressed: progressed === true,
    ...(typeof retryAfterMs === 'number' ? { delayMinMs: retryAfterMs } : {}),
  };
}
