import { mkdir, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import pLimit from 'p-limit';
import { CoveyError, throwIfAborted } from '../errors.ts';
import { fromFileError } from '../file-errors.ts';
import { checkObjectKey, checkPutConditions, checkRange, conditionLost, objectNotFound } from './object-key.ts';
import type { CallOptions, GetOptions, ObjectStore, PutOptions, StoredBody, StoredObject } from './object-store.ts';
import { readObject, type S3ReadModules } from './s3-read.ts';
import { parseS3Url, type S3Settings } from './s3-settings.ts';
import {
  DEFAULT_S3_LIMITS,
  type S3CallOptions,
  type S3Limits,
  type S3Operation,
  S3Transport,
  type S3TransportModules,
} from './s3-transport.ts';
import { putParts, putSingle, type UploadSource } from './s3-upload.ts';
import { parseListPage, unquoteEtag } from './s3-xml.ts';

export interface S3StoreOptions {
  /** `s3://bucket/prefix` */
  readonly url: string;
  readonly settings: S3Settings;
  readonly limits?: Partial<S3Limits>;
}

const LIST_PAGE_KEYS = 1000;
const VERSIONS_MAX = 3;

/**
 * Objects in a bucket of any S3 server (AWS, MinIO, SeaweedFS, …). Every call has a deadline, follows its abort signal, and
 * repeats with jitter what a repetition may cure: 5xx, 429, resets, stalls, short bodies. Conditional writes are the server's
 * (If-None-Match, If-Match): see `probeConditionalWrites`. The bucket must exist.
 */
export class S3Store implements ObjectStore {
  readonly url: string;
  readonly #prefix: string;
  readonly #transport: S3Transport;
  readonly #modules: S3ReadModules;
  /** Set by the first answer that proves the bucket: HEAD's 404 does not say whether bucket or key is missing. */
  #bucketSeen = false;

  constructor(options: S3StoreOptions, modules: S3TransportModules) {
    const { bucket, prefix } = parseS3Url(options.url);
    this.url = prefix === '' ? `s3://${bucket}` : `s3://${bucket}/${prefix}`;
    this.#prefix = prefix === '' ? '' : `${prefix}/`;
    const limits = { ...DEFAULT_S3_LIMITS, ...options.limits };
    this.#transport = new S3Transport({ settings: options.settings, bucket, limits }, modules);
    this.#modules = {
      transport: this.#transport,
      logger: modules.logger,
      ...(modules.metrics ? { metrics: modules.metrics } : {}),
    };
  }

  async get(key: string, options: GetOptions = {}): Promise<StoredBody> {
    const name = this.#nameOf(key);
    if (options.range) checkRange(key, options.range);
    const bytesExpected = options.range?.length ?? 0;
    const range = options.range ? { range: options.range } : {};
    try {
      const body = await readObject(
        name,
        { ...this.#callOptions(options, bytesExpected), bytesExpected, ...range },
        this.#modules,
      );
      this.#bucketSeen = true;
      return body;
    } catch (error) {
      throw this.#missingKey(error, key);
    }
  }

  async head(key: string, options: CallOptions = {}): Promise<StoredObject | null> {
    const name = this.#nameOf(key);
    const call = this.#callOptions(options);
    try {
      const { headers } = await this.#send('head', 'HEAD', name, call);
      return {
        key,
        sizeBytes: Number(headers['content-length'] ?? 0),
        etag: unquoteEtag(String(headers['etag'] ?? '')),
        modifiedAtMs: Date.parse(String(headers['last-modified'] ?? '')) || 0,
      };
    } catch (error) {
      const status = CoveyError.is(error) ? error.fields['httpStatus'] : undefined;
      if (status === 404 && this.#bucketSeen) return null;
      if (status !== 404 && status !== 403 && status !== 400) throw error;
      // An answer to HEAD has no body that says what is wrong; one to a listing has.
      await this.#listPage(name, undefined, 1, call);
      if (status === 404) return null;
      throw error;
    }
  }

  async put(key: string, body: Uint8Array, options: PutOptions = {}): Promise<{ readonly etag: string }> {
    const name = this.#nameOf(key);
    checkPutConditions(key, options);
    const call = this.#callOptions(options, body.length);
    const conditional = options.ifAbsent || options.ifMatch !== undefined;
    if (!conditional && body.length > this.#transport.limits.singlePutBytesMax) {
      const source = {
        sizeBytes: body.length,
        read: async (offset: number, length: number) => body.subarray(offset, offset + length),
      };
      return await this.#putLarge(key, source, call);
    }
    const conditions: Record<string, string> = {};
    if (options.ifAbsent) conditions['if-none-match'] = '*';
    if (options.ifMatch !== undefined) conditions['if-match'] = `"${options.ifMatch}"`;
    let repeated = false;
    const onRetry = () => {
      repeated = true;
    };
    try {
      const stored = await putSingle(this.#transport, name, body, conditions, { ...call, onRetry });
      this.#bucketSeen = true;
      return stored;
    } catch (error) {
      if (!conditional || !isLostCondition(error)) throw error;
      const mine = repeated ? await this.#currentIfEqual(key, body, call) : undefined;
      if (mine) return mine;
      throw conditionLost(this.url, key, options);
    }
  }

  async putFile(key: string, from: string, options: CallOptions = {}): Promise<{ readonly etag: string }> {
    const name = this.#nameOf(key);
    const handle = await open(from).catch((error: unknown) => {
      throw fromFileError(error, 'read', from);
    });
    try {
      const { size } = await handle.stat();
      const source: UploadSource = {
        sizeBytes: size,
        read: async (offset, length) => {
          const bytes = new Uint8Array(length);
          const { bytesRead } = await handle.read(bytes, 0, length, offset);
          if (bytesRead === length) return bytes;
          throw new CoveyError(
            'DATA_CORRUPT',
            `Cannot upload ${from}: it shrank while it was read: ${offset + bytesRead} of ${size} bytes`,
          );
        },
      };
      const call = this.#callOptions(options, size);
      if (size > this.#transport.limits.singlePutBytesMax) return await this.#putLarge(key, source, call);
      return await putSingle(
        this.#transport,
        name,
        size === 0 ? new Uint8Array(0) : await source.read(0, size),
        {},
        call,
      );
    } finally {
      await handle.close();
    }
  }

  async getFile(key: string, to: string, options: CallOptions = {}): Promise<number> {
    for (let versions = 1; ; versions++) {
      try {
        return await this.#getVersion(key, to, options);
      } catch (error) {
        // Replaced while its parts were read: begin again, but not for ever under a busy writer.
        if (!CoveyError.is(error, 'PRECONDITION_FAILED') || versions >= VERSIONS_MAX) throw error;
      }
    }
  }

  async *list(prefix: string, options: CallOptions = {}): AsyncIterable<StoredObject> {
    let token: string | undefined;
    do {
      // The deadline is one page's: the consumer may take its time between pages.
      const page = await this.#listPage(this.#prefix + prefix, token, LIST_PAGE_KEYS, this.#callOptions(options));
      for (const object of page.objects) {
        throwIfAborted(options.signal);
        yield { ...object, key: object.key.slice(this.#prefix.length) };
      }
      token = page.continuationToken;
    } while (token !== undefined);
  }

  async delete(key: string, options: CallOptions = {}): Promise<void> {
    try {
      await this.#send('delete', 'DELETE', this.#nameOf(key), this.#callOptions(options));
    } catch (error) {
      if (CoveyError.is(error, 'NOT_FOUND') && error.fields['s3Code'] !== 'NoSuchBucket') return;
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#transport.close();
  }

  #nameOf(key: string): string {
    checkObjectKey(key);
    return this.#prefix + key;
  }

  #callOptions(options: CallOptions, bytes = 0): S3CallOptions {
    const deadlineAtMs = this.#transport.deadlineAtMs(options.timeoutMs, bytes);
    return options.signal ? { signal: options.signal, deadlineAtMs } : { deadlineAtMs };
  }

  async #send(operation: S3Operation, method: 'HEAD' | 'DELETE', objectName: string, call: S3CallOptions) {
    const response = await this.#transport.call(
      () => ({ operation, method, objectName }),
      async (answer) => {
        await this.#transport.text(answer);
        return answer;
      },
      call,
    );
    this.#bucketSeen = true;
    return response;
  }

  async #listPage(prefix: string, token: string | undefined, keysMax: number, call: S3CallOptions) {
    const query: Record<string, string> = { 'list-type': '2', prefix, 'max-keys': String(keysMax) };
    if (token !== undefined) query['continuation-token'] = token;
    const page = await this.#transport.call(
      () => ({ operation: 'list', method: 'GET', objectName: '', query }),
      async (response) => parseListPage(await this.#transport.text(response)),
      call,
    );
    this.#bucketSeen = true;
    return page;
  }

  async #putLarge(key: string, source: UploadSource, call: S3CallOptions): Promise<{ readonly etag: string }> {
    const head = () => this.head(key, call.signal ? { signal: call.signal } : {});
    return await putParts(this.#nameOf(key), source, call, { ...this.#modules, head });
  }

  /** After a repeated conditional write lost: was the winner our own first attempt, whose answer we never saw? */
  async #currentIfEqual(
    key: string,
    body: Uint8Array,
    call: S3CallOptions,
  ): Promise<{ readonly etag: string } | undefined> {
    try {
      const current = await readObject(this.#nameOf(key), call, this.#modules);
      return Buffer.compare(current.bytes, body) === 0 ? { etag: current.etag } : undefined;
    } catch (error) {
      if (CoveyError.is(error, 'NOT_FOUND')) return undefined;
      throw error;
    }
  }

  async #getVersion(key: string, to: string, options: CallOptions): Promise<number> {
    const object = await this.head(key, options);
    if (!object) throw objectNotFound(this.url, key);
    const temporary = `${to}.covey-tmp-${process.pid}-${crypto.randomUUID()}`;
    try {
      await mkdir(path.dirname(to), { recursive: true });
      await this.#download(key, object, temporary, this.#callOptions(options, object.sizeBytes));
      throwIfAborted(options.signal);
      await rename(temporary, to);
      return object.sizeBytes;
    } catch (error) {
      throw this.#missingKey(fromFileError(error, 'write', to), key);
    } finally {
      await rm(temporary, { force: true });
    }
  }

  /** Ranged reads in parallel, all of the version that HEAD saw, written at their places. */
  async #download(key: string, object: StoredObject, to: string, call: S3CallOptions): Promise<void> {
    const { partBytes, partsInFlightMax } = this.#transport.limits;
    const handle = await open(to, 'wx');
    const limit = pLimit(partsInFlightMax);
    const failed = new AbortController();
    const onAbort = () => failed.abort(call.signal?.reason);
    call.signal?.addEventListener('abort', onAbort, { once: true });
    if (call.signal?.aborted) onAbort();
    const readPart = async (offset: number) => {
      try {
        const length = Math.min(partBytes, object.sizeBytes - offset);
        const options = {
          ...call,
          signal: failed.signal,
          range: { offset, length },
          bytesExpected: length,
          ifMatch: object.etag,
        };
        const { bytes } = await readObject(this.#nameOf(key), options, this.#modules);
        if (bytes.length !== length)
          throw new CoveyError(
            'DATA_CORRUPT',
            `Cannot get ${key}: a part of ${length} bytes came back with ${bytes.length}`,
          );
        await handle.write(bytes, 0, length, offset);
      } catch (error) {
        failed.abort(error);
        throw error;
      }
    };
    const parts = Array.from({ length: Math.ceil(object.sizeBytes / partBytes) }, (_, part) =>
      limit(() => readPart(part * partBytes)),
    );
    try {
      await Promise.all(parts);
    } finally {
      await Promise.allSettled(parts);
      call.signal?.removeEventListener('abort', onAbort);
      await handle.close();
    }
  }

  #missingKey(thrown: unknown, key: string): unknown {
    const missing = CoveyError.is(thrown, 'NOT_FOUND') && thrown.fields['s3Code'] !== 'NoSuchBucket';
    return missing ? objectNotFound(this.url, key, thrown) : thrown;
  }
}

/** 412, or 404 for If-Match on an object that is gone. */
function isLostCondition(error: unknown): boolean {
  return (
    CoveyError.is(error, 'PRECONDITION_FAILED') ||
    (CoveyError.is(error, 'NOT_FOUND') && error.fields['s3Code'] !== 'NoSuchBucket')
  );
}
