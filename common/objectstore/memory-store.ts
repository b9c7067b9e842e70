import { createHash } from 'node:crypto';
import { readFile, rename, rm, writeFile } from 'node:fs/promises';
import type { Clock } from '../clock.ts';
import { throwIfAborted } from '../errors.ts';
import {
  checkObjectKey,
  checkPutConditions,
  checkRange,
  conditionLost,
  objectNotFound,
  rangeOutside,
} from './object-key.ts';
import type { CallOptions, GetOptions, ObjectStore, PutOptions, StoredBody, StoredObject } from './object-store.ts';

interface MemoryObject {
  readonly bytes: Uint8Array;
  readonly etag: string;
  readonly modifiedAtMs: number;
}

/** Objects by key. Shared between stores that are opened with the same name. */
export type MemoryObjects = Map<string, MemoryObject>;

export interface MemoryStoreOptions {
  /** `memory://name` */
  readonly url: string;
  readonly objects: MemoryObjects;
}

/** An ObjectStore inside this process, for tests and dry runs. Nothing survives the process. Bodies are copied in and out. */
export class MemoryStore implements ObjectStore {
  readonly url: string;
  readonly #objects: MemoryObjects;
  readonly #clock: Clock;

  constructor(options: MemoryStoreOptions, modules: { readonly clock: Clock }) {
    this.url = options.url;
    this.#objects = options.objects;
    this.#clock = modules.clock;
  }

  async get(key: string, options: GetOptions = {}): Promise<StoredBody> {
    checkObjectKey(key);
    if (options.range) checkRange(key, options.range);
    throwIfAborted(options.signal);
    const object = this.#objects.get(key);
    if (!object) throw objectNotFound(this.url, key);
    const { offset, length } = options.range ?? { offset: 0, length: object.bytes.length };
    if (options.range && offset >= object.bytes.length) throw rangeOutside(key, offset, object.bytes.length);
    return { bytes: object.bytes.slice(offset, offset + length), etag: object.etag };
  }

  async head(key: string, options: CallOptions = {}): Promise<StoredObject | null> {
    checkObjectKey(key);
    throwIfAborted(options.signal);
    const object = this.#objects.get(key);
    return object ? describe(key, object) : null;
  }

  async put(key: string, body: Uint8Array, options: PutOptions = {}): Promise<{ readonly etag: string }> {
    checkObjectKey(key);
    checkPutConditions(key, options);
    throwIfAborted(options.signal);
    const current = this.#objects.get(key);
    const lost = (options.ifAbsent && current) || (options.ifMatch !== undefined && current?.etag !== options.ifMatch);
    if (lost) throw conditionLost(this.url, key, options);
    const etag = createHash('sha256').update(body).digest('hex');
    this.#objects.set(key, { bytes: Uint8Array.from(body), etag, modifiedAtMs: this.#clock.now() });
    return { etag };
  }

  async putFile(key: string, path: string, options: CallOptions = {}): Promise<{ readonly etag: string }> {
    return await this.put(key, await readFile(path), options);
  }

  async getFile(key: string, path: string, options: CallOptions = {}): Promise<number> {
    const { bytes } = await this.get(key, options);
    const temporary = `${path}.covey-${process.pid}-${crypto.randomUUID()}`;
    try {
      await writeFile(temporary, bytes);
      await rename(temporary, path);
    } finally {
      await rm(temporary, { force: true });
    }
    return bytes.length;
  }

  async *list(prefix: string, options: CallOptions = {}): AsyncIterable<StoredObject> {
    const keys = [...this.#objects.keys()].filter((key) => key.startsWith(prefix)).sort(compareKeys);
    for (const key of keys) {
      throwIfAborted(options.signal);
      const object = this.#objects.get(key);
      if (object) yield describe(key, object);
    }
  }

  async delete(key: string, options: CallOptions = {}): Promise<void> {
    checkObjectKey(key);
    throwIfAborted(options.signal);
    this.#objects.delete(key);
  }

  async close(): Promise<void> {}
}

function describe(key: string, object: MemoryObject): StoredObject {
  return { key, sizeBytes: object.bytes.length, etag: object.etag, modifiedAtMs: object.modifiedAtMs };
}

/** S3's order: bytes of the UTF-8 form, which differs from JavaScript's order beyond the basic plane. */
export function compareKeys(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}
