/**
 * The seam to every byte that outlives a process. Implementations: `file://`, `s3://`, memory; one contract test runs on all.
 * Keys are `/`-separated, relative, without `.` or `..` segments. All methods retry transient failures themselves and
 * throw CoveyError: NOT_FOUND, PRECONDITION_FAILED (conditional write lost), UNAUTHENTICATED, PERMISSION_DENIED,
 * UNAVAILABLE (retries exhausted), DATA_CORRUPT (body shorter or longer than announced), CANCELLED.
 */
export interface ObjectStore {
  /** Canonical URL of the root, without credentials, e.g. `s3://bucket/prefix` or `file:///data`. */
  readonly url: string;
  get(key: string, options?: GetOptions): Promise<StoredBody>;
  /** Size and etag, or null where the key does not exist. */
  head(key: string, options?: CallOptions): Promise<StoredObject | null>;
  /** Atomic: readers see the old object or the new one, never a part. */
  put(key: string, body: Uint8Array, options?: PutOptions): Promise<{ readonly etag: string }>;
  /** Uploads a file, in parallel parts when large. Not conditional; use content-addressed keys. */
  putFile(key: string, path: string, options?: CallOptions): Promise<{ readonly etag: string }>;
  /** Downloads to a local path (written to a temporary name, then renamed). Returns the byte count. */
  getFile(key: string, path: string, options?: CallOptions): Promise<number>;
  /** All objects whose key starts with `prefix`, in key order. */
  list(prefix: string, options?: CallOptions): AsyncIterable<StoredObject>;
  /** Deleting what is not there is not an error. */
  delete(key: string, options?: CallOptions): Promise<void>;
  close(): Promise<void>;
}

export interface CallOptions {
  readonly signal?: AbortSignal;
  /** Deadline over all retries. Default: the store's own. */
  readonly timeoutMs?: number;
}

export interface GetOptions extends CallOptions {
  readonly range?: { readonly offset: number; readonly length: number };
}

export interface PutOptions extends CallOptions {
  /** Succeeds only where the key does not exist. */
  readonly ifAbsent?: boolean;
  /** Succeeds only where the current object still has this etag. */
  readonly ifMatch?: string;
}

export interface StoredObject {
  readonly key: string;
  readonly sizeBytes: number;
  readonly etag: string;
  readonly modifiedAtMs: number;
}

export interface StoredBody {
  readonly bytes: Uint8Array;
  readonly etag: string;
}
