import { createHash } from 'node:crypto';
import pLimit from 'p-limit';
import { CoveyError } from '../errors.ts';
import type { Logger } from '../log.ts';
import { fromS3Response, transientError } from './s3-errors.ts';
import type { S3CallOptions, S3Transport } from './s3-transport.ts';
import { completeUploadXml, parseCompletedEtag, parseS3Error, parseUploadId, unquoteEtag } from './s3-xml.ts';

/** Where the bytes of an upload come from: a buffer or a file. May be asked for the same part again. */
export interface UploadSource {
  readonly sizeBytes: number;
  read(offset: number, length: number): Promise<Uint8Array>;
}

export interface UploadModules {
  readonly transport: S3Transport;
  readonly logger: Logger;
  /** The object's size and etag now, or null: for a completion whose answer was lost. */
  readonly head: () => Promise<{ readonly sizeBytes: number; readonly etag: string } | null>;
}

/** S3's limit on parts of one object. */
const PARTS_MAX = 10_000;
const ABORT_TIMEOUT_MS = 10_000;

/** One PUT of the whole body. Content-MD5 lets the server refuse what the network changed. */
export async function putSingle(
  transport: S3Transport,
  objectName: string,
  body: Uint8Array,
  conditions: Readonly<Record<string, string>>,
  options: S3CallOptions,
): Promise<{ readonly etag: string }> {
  const headers = { 'content-type': 'application/octet-stream', 'content-md5': md5Base64(body), ...conditions };
  return await transport.call(
    () => ({ operation: 'put', method: 'PUT', objectName, headers, body }),
    async (response) => {
      await transport.text(response);
      return { etag: unquoteEtag(String(response.headers['etag'] ?? '')) };
    },
    options,
  );
}

/**
 * Uploads in parallel parts, each retried by itself; memory is `partsInFlightMax` parts. On any failure the upload is aborted, so
 * that no invisible parts stay behind (best effort: a crash leaves them to the bucket's lifecycle rule).
 */
export async function putParts(
  objectName: string,
  source: UploadSource,
  options: S3CallOptions,
  modules: UploadModules,
): Promise<{ readonly etag: string }> {
  const { transport } = modules;
  const uploadId = await transport.call(
    () => ({
      operation: 'upload_start',
      method: 'POST',
      objectName,
      query: { uploads: '' },
      headers: { 'content-type': 'application/octet-stream' },
    }),
    async (response) => parseUploadId(await transport.text(response)),
    options,
  );
  try {
    const etags = await uploadParts(objectName, uploadId, source, options, transport);
    return await completeUpload(objectName, uploadId, { etags, sizeBytes: source.sizeBytes }, options, modules);
  } catch (error) {
    await abortUpload(objectName, uploadId, modules);
    throw error;
  }
}

/** Part size in bytes: the wished one, or larger where an object would need more than 10,000 parts. */
export function partSizeBytes(sizeBytes: number, wishedBytes: number): number {
  const mebibyte = 2 ** 20;
  return Math.max(wishedBytes, Math.ceil(sizeBytes / PARTS_MAX / mebibyte) * mebibyte);
}

async function uploadParts(
  objectName: string,
  uploadId: string,
  source: UploadSource,
  options: S3CallOptions,
  transport: S3Transport,
): Promise<string[]> {
  const partBytes = partSizeBytes(source.sizeBytes, transport.limits.partBytes);
  const partCount = Math.ceil(source.sizeBytes / partBytes);
  const limit = pLimit(transport.limits.partsInFlightMax);
  // The first failure ends the other parts: the upload is lost anyway.
  const failed = new AbortController();
  const onAbort = () => failed.abort(options.signal?.reason);
  options.signal?.addEventListener('abort', onAbort, { once: true });
  if (options.signal?.aborted) onAbort();
  const parts = Array.from({ length: partCount }, (_, index) =>
    limit(async () => {
      try {
        const offset = index * partBytes;
        const body = await source.read(offset, Math.min(partBytes, source.sizeBytes - offset));
        return await uploadPart(
          objectName,
          uploadId,
          index + 1,
          body,
          { ...options, signal: failed.signal },
          transport,
        );
      } catch (error) {
        failed.abort(error);
        throw error;
      }
    }),
  );
  try {
    return await Promise.all(parts);
  } finally {
    await Promise.allSettled(parts);
    options.signal?.removeEventListener('abort', onAbort);
  }
}

async function uploadPart(
  objectName: string,
  uploadId: string,
  partNumber: number,
  body: Uint8Array,
  options: S3CallOptions,
  transport: S3Transport,
): Promise<string> {
  const query = { partNumber: String(partNumber), uploadId };
  return await transport.call(
    () => ({
      operation: 'upload_part',
      method: 'PUT',
      objectName,
      query,
      headers: { 'content-md5': md5Base64(body) },
      body,
    }),
    async (response) => {
      await transport.text(response);
      return unquoteEtag(String(response.headers['etag'] ?? ''));
    },
    options,
  );
}

async function completeUpload(
  objectName: string,
  uploadId: string,
  parts: { readonly etags: readonly string[]; readonly sizeBytes: number },
  options: S3CallOptions,
  { transport, head }: UploadModules,
): Promise<{ readonly etag: string }> {
  let repeated = false;
  const body = Buffer.from(completeUploadXml(parts.etags));
  try {
    return await transport.call(
      () => ({
        operation: 'upload_complete',
        method: 'POST',
        objectName,
        query: { uploadId },
        headers: { 'content-type': 'application/xml' },
        body,
      }),
      async (response) => {
        const xml = await transport.text(response);
        // S3 may answer 200 first and report a failure in the body.
        const failure = parseS3Error(xml);
        if (failure) {
          throw fromS3Response(
            500,
            failure,
            { ...transport.settings, bucket: transport.bucket, action: `complete upload of ${objectName}` },
            undefined,
          );
        }
        if (!xml.includes('CompleteMultipartUploadResult'))
          throw transientError(
            'DATA_CORRUPT',
            'truncated',
            `Cannot complete upload of ${objectName}: the answer was cut`,
          );
        return { etag: parseCompletedEtag(xml) };
      },
      {
        ...options,
        onRetry: () => {
          repeated = true;
        },
      },
    );
  } catch (error) {
    // An earlier attempt may have done it although its answer was lost; the upload is then gone.
    const gone = CoveyError.is(error, 'NOT_FOUND') && error.fields['s3Code'] === 'NoSuchUpload';
    const current = repeated && gone ? await head() : null;
    if (current?.sizeBytes === parts.sizeBytes && current.etag.endsWith(`-${parts.etags.length}`))
      return { etag: current.etag };
    throw error;
  }
}

async function abortUpload(objectName: string, uploadId: string, { transport, logger }: UploadModules): Promise<void> {
  try {
    await transport.call(
      () => ({ operation: 'upload_abort', method: 'DELETE', objectName, query: { uploadId } }),
      async (response) => void (await transport.text(response)),
      // Its own deadline: the caller's may be over, which is why we are here.
      { deadlineAtMs: transport.deadlineAtMs(ABORT_TIMEOUT_MS) },
    );
  } catch (error) {
    if (CoveyError.is(error, 'NOT_FOUND')) return;
    logger.warn(
      { key: objectName, error: String(error) },
      'could not abort an unfinished upload; its parts stay until the bucket expires them',
    );
  }
}

function md5Base64(body: Uint8Array): string {
  return createHash('md5').update(body).digest('base64');
}
