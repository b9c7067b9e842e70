import grpc from '@grpc/grpc-js';
import { CoveyError, type ErrorCode } from '../common/errors.ts';
import { coveyPackage } from './load.ts';

/** Trailer that carries a serialised google.rpc.Status (grpc.io/docs/guides/error). */
const DETAILS_TRAILER = 'grpc-status-details-bin';
const ERROR_INFO_URL = 'type.googleapis.com/google.rpc.ErrorInfo';
const DOMAIN = 'covey';
/** Trailers share a 16 KiB header limit by default: fields beyond this are dropped, the message stays. */
const METADATA_BYTES_MAX = 4096;

/** Status of each code (reference: stale generation = do not retry, re-join; aborted = retry higher up). */
const STATUS_BY_CODE: Readonly<Record<ErrorCode, grpc.status>> = {
  INVALID_ARGUMENT: grpc.status.INVALID_ARGUMENT,
  CONFIG_INVALID: grpc.status.INVALID_ARGUMENT,
  NOT_FOUND: grpc.status.NOT_FOUND,
  ALREADY_EXISTS: grpc.status.ALREADY_EXISTS,
  PRECONDITION_FAILED: grpc.status.FAILED_PRECONDITION,
  STALE_GENERATION: grpc.status.FAILED_PRECONDITION,
  ABORTED: grpc.status.ABORTED,
  CANCELLED: grpc.status.CANCELLED,
  TIMEOUT: grpc.status.DEADLINE_EXCEEDED,
  UNAVAILABLE: grpc.status.UNAVAILABLE,
  UNAUTHENTICATED: grpc.status.UNAUTHENTICATED,
  PERMISSION_DENIED: grpc.status.PERMISSION_DENIED,
  RESOURCE_EXHAUSTED: grpc.status.RESOURCE_EXHAUSTED,
  DATA_CORRUPT: grpc.status.DATA_LOSS,
  NON_FINITE: grpc.status.FAILED_PRECONDITION,
  UNSUPPORTED: grpc.status.UNIMPLEMENTED,
  INTERNAL: grpc.status.INTERNAL,
};

/** What a status means where no ErrorInfo came with it: an error made by gRPC itself or by something between. */
const CODE_BY_STATUS: ReadonlyMap<grpc.status, ErrorCode> = new Map([
  [grpc.status.INVALID_ARGUMENT, 'INVALID_ARGUMENT'],
  [grpc.status.OUT_OF_RANGE, 'INVALID_ARGUMENT'],
  [grpc.status.NOT_FOUND, 'NOT_FOUND'],
  [grpc.status.ALREADY_EXISTS, 'ALREADY_EXISTS'],
  [grpc.status.FAILED_PRECONDITION, 'PRECONDITION_FAILED'],
  [grpc.status.ABORTED, 'ABORTED'],
  [grpc.status.CANCELLED, 'CANCELLED'],
  [grpc.status.DEADLINE_EXCEEDED, 'TIMEOUT'],
  [grpc.status.UNAVAILABLE, 'UNAVAILABLE'],
  [grpc.status.UNAUTHENTICATED, 'UNAUTHENTICATED'],
  [grpc.status.PERMISSION_DENIED, 'PERMISSION_DENIED'],
  [grpc.status.RESOURCE_EXHAUSTED, 'RESOURCE_EXHAUSTED'],
  [grpc.status.DATA_LOSS, 'DATA_CORRUPT'],
  [grpc.status.UNIMPLEMENTED, 'UNSUPPORTED'],
]);

function isErrorCode(reason: string): reason is ErrorCode {
  return Object.hasOwn(STATUS_BY_CODE, reason);
}

/** Fields as strings, in order, as far as they fit. */
function metadataOf(error: CoveyError): Record<string, string> {
  const metadata: Record<string, string> = {};
  let bytes = 0;
  for (const [key, value] of Object.entries(error.fields)) {
    const text = typeof value === 'string' ? value : (JSON.stringify(value) ?? String(value));
    bytes += Buffer.byteLength(key) + Buffer.byteLength(text);
    if (bytes > METADATA_BYTES_MAX) break;
    metadata[key] = text;
  }
  return metadata;
}

/** What a gRPC handler answers for an error: status, message, and ErrorInfo {reason: code, domain: "covey", metadata: fields}. */
export function toStatus(thrown: unknown): grpc.ServerErrorResponse & { readonly metadata: grpc.Metadata } {
  const error = CoveyError.from(thrown);
  const status = STATUS_BY_CODE[error.code];
  const { Status, ErrorInfo } = coveyPackage().google.rpc;
  const info = ErrorInfo.serialize({ reason: error.code, domain: DOMAIN, metadata: metadataOf(error) });
  const details = [{ type_url: ERROR_INFO_URL, value: info }];
  const metadata = new grpc.Metadata();
  metadata.set(DETAILS_TRAILER, Status.serialize({ code: status, message: error.message, details }));
  return { name: error.name, code: status, details: error.message, message: error.message, metadata };
}

/** The inverse of `toStatus` on the caller's side: the server's code and fields where it sent them, else by status. `call` and
 * `address` name what was attempted. */
export function fromStatus(thrown: unknown, call: string, address: string): CoveyError {
  if (!isServiceError(thrown)) return CoveyError.from(thrown);
  const info = errorInfo(thrown.metadata);
  if (info !== undefined && isErrorCode(info.reason)) {
    return new CoveyError(info.reason, thrown.details, { cause: thrown, fields: info.metadata });
  }
  const code = CODE_BY_STATUS.get(thrown.code) ?? 'INTERNAL';
  const fields = {
    call,
    address,
    status: grpc.status[thrown.code],
    ...(code === 'TIMEOUT' ? { waitingFor: address } : {}),
  };
  return new CoveyError(code, `Cannot call ${call} at ${address}: ${thrown.details || thrown.message}`, {
    cause: thrown,
    fields,
  });
}

function isServiceError(thrown: unknown): thrown is grpc.ServiceError {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'number' && 'details' in thrown;
}

function errorInfo(
  trailers: grpc.Metadata | undefined,
): { reason: string; metadata: Record<string, string> } | undefined {
  const packed = trailers?.get(DETAILS_TRAILER)[0];
  if (!Buffer.isBuffer(packed)) return undefined;
  const { Status, ErrorInfo } = coveyPackage().google.rpc;
  for (const detail of Status.deserialize(packed).details) {
    // proto-loader names Any's fields as protobufjs's own bundled descriptor does: type_url stays in snake case.
    if (!('type_url' in detail) || detail.type_url !== ERROR_INFO_URL) continue;
    const info = ErrorInfo.deserialize(detail.value as Buffer);
    if (info.domain === DOMAIN) return { reason: info.reason, metadata: info.metadata };
  }
  return undefined;
}
