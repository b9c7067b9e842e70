import { createHash } from 'node:crypto';
import { CoveyError } from '../errors.ts';
import type { Logger } from '../log.ts';
import type { StoreMetrics } from '../metrics/store-metrics.ts';
import type { StoredBody } from './object-store.ts';
import { transientError } from './s3-errors.ts';
import type { S3CallOptions, S3Request, S3Response, S3Transport } from './s3-transport.ts';
import { unquoteEtag } from './s3-xml.ts';

/** Up to this size a whole body is checked against an MD5 etag. Larger data is content-addressed and hashed by its reader. */
const MD5_CHECKED_BYTES_MAX = 8 * 2 ** 20;

const VERSIONS_MAX = 5;

export interface S3ReadModules {
  readonly transport: S3Transport;
  readonly logger: Logger;
  readonly metrics?: StoreMetrics;
}

export interface S3ReadOptions extends S3CallOptions {
  readonly range?: { readonly offset: number; readonly length: number };
  /** Fails with PRECONDITION_FAILED where the object has another etag. */
  readonly ifMatch?: string;
}

/** Bytes that arrived so far, kept between attempts. */
interface Partial {
  etag: string;
  bytes: Uint8Array;
  filled: number;
}

/**
 * One read that survives resets: what has arrived is kept and the rest is asked for by range, under If-Match so that two versions
 * never mix. Length is always checked; a whole body of at most 8 MiB also against its etag where that is an MD5.
 * A range that passes the end is cut there, as HTTP does; one that starts beyond it is INVALID_ARGUMENT.
 */
export async function readObject(
  objectName: string,
  options: S3ReadOptions,
  modules: S3ReadModules,
): Promise<StoredBody> {
  for (let versions = 1; ; versions++) {
    const reader = new ResumableRead(objectName, options, modules);
    try {
      return await modules.transport.call(
        () => reader.request(),
        (response) => reader.receive(response),
        options,
      );
    } catch (error) {
      // Replaced between two attempts: begin again with the new version, but not for ever under a busy writer.
      const replaced = CoveyError.is(error, 'PRECONDITION_FAILED') && options.ifMatch === undefined;
      if (!replaced || versions >= VERSIONS_MAX) throw error;
    }
  }
}

class ResumableRead {
  readonly #objectName: string;
  readonly #options: S3ReadOptions;
  readonly #modules: S3ReadModules;
  #partial: Partial | undefined;
  #rejectedMd5: string | undefined;

  constructor(objectName: string, options: S3ReadOptions, modules: S3ReadModules) {
    this.#objectName = objectName;
    this.#options = options;
    this.#modules = modules;
  }

  request(): S3Request {
    const { range, ifMatch } = this.#options;
    const filled = this.#partial?.filled ?? 0;
    const headers: Record<string, string> = {};
    const etag = this.#partial?.etag ?? ifMatch;
    if (etag !== undefined) headers['if-match'] = `"${etag}"`;
    if (range) headers['range'] = `bytes=${range.offset + filled}-${range.offset + range.length - 1}`;
    else if (filled > 0) headers['range'] = `bytes=${filled}-`;
    return { operation: 'get', method: 'GET', objectName: this.#objectName, headers };
  }

  async receive(response: S3Response): Promise<StoredBody> {
    const filledBefore = this.#partial?.filled ?? 0;
    try {
      return await this.#receive(response);
    } catch (thrown) {
      const progressed = (this.#partial?.filled ?? 0) > filledBefore;
      // A deadline or abort of the attempt replaces this error in the transport, which keeps `progressed`.
      if (!progressed || (thrown instanceof CoveyError && thrown.fields['transient'] !== true)) throw thrown;
      const message = thrown instanceof Error ? thrown.message : String(thrown);
      const code = thrown instanceof CoveyError ? thrown.code : 'UNAVAILABLE';
      const reason = thrown instanceof CoveyError ? thrown.fields['reason'] : 'reset';
      throw new CoveyError(code, `Cannot get ${this.#objectName}: ${message}`, {
        cause: thrown,
        fields: { transient: true, reason, progressed },
      });
    }
  }

  async #receive(response: S3Response): Promise<StoredBody> {
    const etag = unquoteEtag(String(response.headers['etag'] ?? ''));
    const length = Number(response.headers['content-length'] ?? Number.NaN);
    const resumed = this.#partial;
    const ranged = this.#options.range !== undefined || (resumed?.filled ?? 0) > 0;
    if (ranged && response.status !== 206) throw this.#unusable('it ignores byte ranges');
    if (!Number.isSafeInteger(length)) throw this.#unusable('it sends no Content-Length');
    if (resumed && resumed.etag !== etag) {
      // If-Match should have prevented it; a server that ignores the condition must not make us mix versions.
      this.#partial = undefined;
      throw transientError('DATA_CORRUPT', 'changed', `Cannot get ${this.#objectName}: it changed while it was read`);
    }
    const partial = resumed ?? { etag, bytes: new Uint8Array(length), filled: 0 };
    this.#partial = partial;
    if (length !== partial.bytes.length - partial.filled) throw this.#wrongLength(partial, partial.filled + length);
    for await (const chunk of response.body as AsyncIterable<Uint8Array>) {
      if (partial.filled + chunk.length > partial.bytes.length)
        throw this.#wrongLength(partial, partial.filled + chunk.length);
      partial.bytes.set(chunk, partial.filled);
      partial.filled += chunk.length;
      this.#modules.metrics?.bytes.inc({ direction: 'in' }, chunk.length);
    }
    if (partial.filled !== partial.bytes.length) throw this.#wrongLength(partial, partial.filled);
    if (!this.#options.range) this.#checkMd5(partial, response);
    return { bytes: partial.bytes, etag };
  }

  #wrongLength(partial: Partial, length: number): CoveyError {
    const message = `Cannot get ${this.#objectName}: the body has ${length} bytes, ${partial.bytes.length} were announced`;
    return transientError('DATA_CORRUPT', 'truncated', message, {
      expectedBytes: partial.bytes.length,
      receivedBytes: length,
    });
  }

  #unusable(why: string): CoveyError {
    const { endpoint } = this.#modules.transport.settings;
    return new CoveyError(
      'UNSUPPORTED',
      `Cannot get ${this.#objectName}: ${endpoint} is not usable as an object store: ${why}`,
      { fields: { endpoint } },
    );
  }

  #checkMd5(partial: Partial, response: S3Response): void {
    const encrypted = response.headers['x-amz-server-side-encryption'] !== undefined;
    if (encrypted || partial.bytes.length > MD5_CHECKED_BYTES_MAX || !/^[0-9a-f]{32}$/.test(partial.etag)) return;
    const md5 = createHash('md5').update(partial.bytes).digest('hex');
    if (md5 === partial.etag) return;
    this.#partial = undefined;
    if (md5 === this.#rejectedMd5) {
      // The same bytes twice: not the network. Either the server's etag is no MD5, or its copy is bad, which the reader's own
      // hash will find; refusing here would lock out such servers.
      this.#modules.logger.warn({ key: this.#objectName, etag: partial.etag, md5 }, 'object does not match its etag');
      return;
    }
    this.#rejectedMd5 = md5;
    throw transientError(
      'DATA_CORRUPT',
      'corrupt',
      `Cannot get ${this.#objectName}: the body does not match its etag ${partial.etag}: MD5 ${md5}`,
    );
  }
}
