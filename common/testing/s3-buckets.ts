import { createHash } from 'node:crypto';

/** The state behind the test server: buckets, objects and unfinished uploads, with S3's rules for conditions and parts. */

/** An S3 error answer. Not a CoveyError: it is data that the server sends. */
export class S3Fault {
  readonly status: number;
  readonly code: string;
  readonly message: string;

  constructor(status: number, code: string, message: string) {
    this.status = status;
    this.code = code;
    this.message = message;
  }
}

export interface StoredBytes {
  readonly bytes: Uint8Array;
  /** Without quotes. MD5, or MD5 of the parts' MD5s with `-count`. */
  readonly etag: string;
  readonly modifiedAtMs: number;
}

interface Upload {
  readonly key: string;
  readonly parts: Map<number, { readonly bytes: Uint8Array; readonly etag: string }>;
}

export interface Conditions {
  readonly ifMatch: string | undefined;
  readonly ifNoneMatch: string | undefined;
}

export interface Bucket {
  readonly objects: Map<string, StoredBytes>;
  readonly uploads: Map<string, Upload>;
}

export function emptyBucket(): Bucket {
  return { objects: new Map(), uploads: new Map() };
}

export function getObject(bucket: Bucket, key: string): StoredBytes {
  const object = bucket.objects.get(key);
  if (!object) throw new S3Fault(404, 'NoSuchKey', 'The specified key does not exist.');
  return object;
}

/** Conditional writes as AWS documents them: 412 on a lost condition, 404 for If-Match without an object. */
export function putObject(
  bucket: Bucket,
  key: string,
  bytes: Uint8Array,
  conditions: Conditions,
  nowMs: number,
): StoredBytes {
  checkWriteConditions(bucket, key, conditions);
  const object = { bytes, etag: md5(bytes), modifiedAtMs: nowMs };
  bucket.objects.set(key, object);
  return object;
}

export function startUpload(bucket: Bucket, key: string, uploadId: string): void {
  bucket.uploads.set(uploadId, { key, parts: new Map() });
}

export function putPart(bucket: Bucket, key: string, uploadId: string, partNumber: number, bytes: Uint8Array): string {
  if (!(partNumber >= 1 && partNumber <= 10_000))
    throw new S3Fault(400, 'InvalidArgument', 'Part number must be an integer between 1 and 10000');
  const etag = md5(bytes);
  uploadOf(bucket, key, uploadId).parts.set(partNumber, { bytes, etag });
  return etag;
}

export interface CompletedPart {
  readonly partNumber: number;
  readonly etag: string;
}

export function completeUpload(
  bucket: Bucket,
  key: string,
  uploadId: string,
  completed: readonly CompletedPart[],
  options: { readonly conditions: Conditions; readonly partBytesMin: number; readonly nowMs: number },
): StoredBytes {
  const upload = uploadOf(bucket, key, uploadId);
  if (completed.length === 0) throw new S3Fault(400, 'MalformedXML', 'You must specify at least one part');
  const parts = completed.map(({ partNumber, etag }, index) => {
    const part = upload.parts.get(partNumber);
    if (!part || part.etag !== etag)
      throw new S3Fault(400, 'InvalidPart', `Part ${partNumber} was not found or its entity tag does not match`);
    const previous = completed[index - 1];
    if (previous && previous.partNumber >= partNumber)
      throw new S3Fault(400, 'InvalidPartOrder', 'The list of parts was not in ascending order');
    if (index < completed.length - 1 && part.bytes.length < options.partBytesMin) {
      throw new S3Fault(400, 'EntityTooSmall', 'Your proposed upload is smaller than the minimum allowed size');
    }
    return part;
  });
  checkWriteConditions(bucket, key, options.conditions);
  const digests = Buffer.concat(parts.map((part) => Buffer.from(part.etag, 'hex')));
  const object = {
    bytes: Buffer.concat(parts.map((part) => part.bytes)),
    etag: `${md5(digests)}-${parts.length}`,
    modifiedAtMs: options.nowMs,
  };
  bucket.objects.set(key, object);
  bucket.uploads.delete(uploadId);
  return object;
}

export function abortUpload(bucket: Bucket, key: string, uploadId: string): void {
  uploadOf(bucket, key, uploadId);
  bucket.uploads.delete(uploadId);
}

export interface ListRequest {
  readonly prefix: string;
  readonly after: string;
  readonly keysMax: number;
}

export function listObjects(
  bucket: Bucket,
  request: ListRequest,
): { readonly keys: readonly string[]; readonly truncated: boolean } {
  const keys = [...bucket.objects.keys()]
    .filter((key) => key.startsWith(request.prefix) && Buffer.compare(Buffer.from(key), Buffer.from(request.after)) > 0)
    .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  return { keys: keys.slice(0, request.keysMax), truncated: keys.length > request.keysMax };
}

export interface ByteRange {
  readonly start: number;
  /** Inclusive. */
  readonly end: number;
}

/** A single `bytes=` range within an object; undefined where there is none (or a form that HTTP lets a server ignore). Throws 416 outside. */
export function parseRange(header: string | undefined, sizeBytes: number): ByteRange | undefined {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? '');
  if (!match || (match[1] === '' && match[2] === '')) return undefined;
  const suffix = match[1] === '';
  const start = suffix ? Math.max(0, sizeBytes - Number(match[2])) : Number(match[1]);
  const end = suffix || match[2] === '' ? sizeBytes - 1 : Math.min(Number(match[2]), sizeBytes - 1);
  if (start >= sizeBytes || start > end)
    throw new S3Fault(416, 'InvalidRange', 'The requested range is not satisfiable');
  return { start, end };
}

function checkWriteConditions(bucket: Bucket, key: string, { ifMatch, ifNoneMatch }: Conditions): void {
  const current = bucket.objects.get(key);
  if (ifNoneMatch !== undefined) {
    if (ifNoneMatch !== '*') throw new S3Fault(501, 'NotImplemented', 'If-None-Match on a write takes only *');
    if (current)
      throw new S3Fault(412, 'PreconditionFailed', 'At least one of the pre-conditions you specified did not hold');
  }
  if (ifMatch !== undefined) {
    if (!current) throw new S3Fault(404, 'NoSuchKey', 'The specified key does not exist.');
    if (current.etag !== ifMatch)
      throw new S3Fault(412, 'PreconditionFailed', 'At least one of the pre-conditions you specified did not hold');
  }
}

function uploadOf(bucket: Bucket, key: string, uploadId: string): Upload {
  const upload = bucket.uploads.get(uploadId);
  if (upload?.key !== key) throw new S3Fault(404, 'NoSuchUpload', 'The specified multipart upload does not exist.');
  return upload;
}

function md5(bytes: Uint8Array): string {
  return createHash('md5').update(bytes).digest('hex');
}
