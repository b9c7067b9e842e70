import { createHash } from 'node:crypto';
import type { Stats } from 'node:fs';
import { copyFile, type FileHandle, link, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import type { Clock } from '../clock.ts';
import { CoveyError, throwIfAborted } from '../errors.ts';
import { fromFileError } from '../file-errors.ts';
import type { RandomStream } from '../random.ts';
import { withKeyLock } from './key-lock.ts';
import { compareKeys } from './memory-store.ts';
import {
  checkObjectKey,
  checkPutConditions,
  checkRange,
  conditionLost,
  objectNotFound,
  RESERVED_SEGMENT_PREFIX,
  rangeOutside,
} from './object-key.ts';
import type { CallOptions, GetOptions, ObjectStore, PutOptions, StoredBody, StoredObject } from './object-store.ts';

export interface FileStoreOptions {
  /** `file:///absolute/folder`. The folder is created at the first write. */
  readonly url: string;
  /** How long a conditional write waits for another one on the same key. Default 10 000. */
  readonly lockTimeoutMs?: number;
}

export interface FileStoreModules {
  readonly clock: Clock;
  readonly random: Pick<RandomStream, 'uniform'>;
}

const TEMPORARY_PREFIX = `${RESERVED_SEGMENT_PREFIX}tmp-`;
const LOCK_PREFIX = `${RESERVED_SEGMENT_PREFIX}lock-`;
/** Up to this size an etag is the SHA-256 of the content; above, reading it would cost more than it is worth. */
const HASHED_BYTES_MAX = 256 * 1024;

/**
 * Objects as files below one folder; the embedded default. Writes are atomic and durable (temporary file, fsync, rename, fsync of
 * the folder) and safe between processes on one host: `ifAbsent` is link(2), `ifMatch` runs under a crash-safe lock (key-lock.ts).
 * Conditional writes are atomic against each other; an unconditional put or a delete at the same moment may win over them.
 *
 * The etag is the SHA-256 of the content up to 256 KiB, and size, inode and time of change above. Unlike S3, a key cannot
 * also be a folder of another key: INVALID_ARGUMENT.
 */
export class FileStore implements ObjectStore {
  readonly url: string;
  readonly #root: string;
  readonly #lockTimeoutMs: number;
  readonly #modules: FileStoreModules;

  constructor(options: FileStoreOptions, modules: FileStoreModules) {
    this.#root = rootOf(options.url);
    this.url = pathToFileURL(this.#root).href;
    this.#lockTimeoutMs = options.lockTimeoutMs ?? 10_000;
    this.#modules = modules;
  }

  async get(key: string, options: GetOptions = {}): Promise<StoredBody> {
    const file = this.#pathOf(key);
    if (options.range) checkRange(key, options.range);
    throwIfAborted(options.signal);
    const handle = await open(file).catch((error: unknown) => {
      throw this.#readError(error, key);
    });
    try {
      const stats = await handle.stat();
      if (stats.isDirectory()) throw objectNotFound(this.url, key);
      const { offset, length } = options.range ?? { offset: 0, length: stats.size };
      if (options.range && offset >= stats.size) throw rangeOutside(key, offset, stats.size);
      if (stats.size > HASHED_BYTES_MAX) {
        const bytes = await readExactly(handle, offset, Math.min(length, stats.size - offset), key);
        return { bytes, etag: etagOfStats(stats) };
      }
      const whole = await readExactly(handle, 0, stats.size, key);
      return { bytes: whole.subarray(offset, offset + length), etag: sha256Hex(whole) };
    } catch (error) {
      throw this.#readError(error, key);
    } finally {
      await handle.close();
    }
  }

  async head(key: string, options: CallOptions = {}): Promise<StoredObject | null> {
    const file = this.#pathOf(key);
    throwIfAborted(options.signal);
    return await this.#describe(key, file);
  }

  async put(key: string, body: Uint8Array, options: PutOptions = {}): Promise<{ readonly etag: string }> {
    checkPutConditions(key, options);
    return await this.#write(key, options, async (temporary) => {
      const handle = await open(temporary, 'wx');
      try {
        await handle.writeFile(body);
        await handle.sync();
        const stats = await handle.stat();
        return stats.size > HASHED_BYTES_MAX ? etagOfStats(stats) : sha256Hex(body);
      } finally {
        await handle.close();
      }
    });
  }

  async putFile(key: string, from: string, options: CallOptions = {}): Promise<{ readonly etag: string }> {
    return await this.#write(key, options, async (temporary) => await copyDurably(from, temporary));
  }

  async getFile(key: string, to: string, options: CallOptions = {}): Promise<number> {
    const file = this.#pathOf(key);
    throwIfAborted(options.signal);
    const temporary = `${to}${TEMPORARY_PREFIX}${process.pid}-${crypto.randomUUID()}`;
    try {
      if (!(await stat(file)).isFile()) throw objectNotFound(this.url, key);
      await mkdir(path.dirname(to), { recursive: true });
      await copyDurably(file, temporary);
      const { size } = await stat(temporary);
      throwIfAborted(options.signal);
      await rename(temporary, to);
      return size;
    } catch (error) {
      throw this.#readError(error, key);
    } finally {
      await removeTemporary(temporary);
    }
  }

  async *list(prefix: string, options: CallOptions = {}): AsyncIterable<StoredObject> {
    // Only the folder that the prefix names can hold matches.
    const folder = prefix.includes('/') ? prefix.slice(0, prefix.lastIndexOf('/')) : '';
    if (folder !== '') checkObjectKey(folder);
    const keys: string[] = [];
    for await (const key of this.#keysBelow(folder, options.signal)) if (key.startsWith(prefix)) keys.push(key);
    for (const key of keys.sort(compareKeys)) {
      throwIfAborted(options.signal);
      const object = await this.#describe(key, path.join(this.#root, key));
      if (object) yield object;
    }
  }

  async delete(key: string, options: CallOptions = {}): Promise<void> {
    const file = this.#pathOf(key);
    throwIfAborted(options.signal);
    const found = await stat(file).catch(() => undefined);
    if (!found?.isFile()) return;
    await rm(file, { force: true }).catch((error: unknown) => {
      throw fromFileError(error, 'delete', file);
    });
  }

  async close(): Promise<void> {}

  #pathOf(key: string): string {
    checkObjectKey(key);
    return path.join(this.#root, ...key.split('/'));
  }

  /** Writes a temporary file beside the target (same file system), then puts it in place under the conditions. */
  async #write(
    key: string,
    options: PutOptions,
    fill: (temporary: string) => Promise<string>,
  ): Promise<{ readonly etag: string }> {
    const file = this.#pathOf(key);
    const folder = path.dirname(file);
    throwIfAborted(options.signal);
    const temporary = path.join(folder, `${TEMPORARY_PREFIX}${process.pid}-${crypto.randomUUID()}`);
    try {
      await mkdir(folder, { recursive: true });
      const etag = await fill(temporary);
      throwIfAborted(options.signal);
      await this.#place(key, temporary, file, options);
      await syncFolder(folder);
      return { etag };
    } catch (error) {
      throw fromFileError(error, 'write', file);
    } finally {
      await removeTemporary(temporary);
    }
  }

  async #place(key: string, temporary: string, file: string, options: PutOptions): Promise<void> {
    if (options.ifAbsent) {
      await link(temporary, file).catch((error: unknown) => {
        throw (error as NodeJS.ErrnoException).code === 'EEXIST' ? conditionLost(this.url, key, options) : error;
      });
      return;
    }
    if (options.ifMatch === undefined) {
      await rename(temporary, file);
      return;
    }
    const name = createHash('sha256').update(path.basename(file)).digest('hex').slice(0, 32);
    const lock = {
      folder: path.join(path.dirname(file), `${LOCK_PREFIX}${name}`),
      timeoutMs: options.timeoutMs ?? this.#lockTimeoutMs,
    };
    await withKeyLock(options.signal ? { ...lock, signal: options.signal } : lock, this.#modules, async () => {
      const current = await this.#describe(key, file);
      if (current?.etag !== options.ifMatch) throw conditionLost(this.url, key, options);
      await rename(temporary, file);
    });
  }

  async #describe(key: string, file: string): Promise<StoredObject | null> {
    try {
      // One handle for size and content: the file may be replaced between two looks at its name.
      const handle = await open(file);
      try {
        const stats = await handle.stat();
        if (!stats.isFile()) return null;
        return { key, sizeBytes: stats.size, etag: await etagOf(handle, stats), modifiedAtMs: stats.mtimeMs };
      } finally {
        await handle.close();
      }
    } catch (error) {
      const errno = (error as NodeJS.ErrnoException).code;
      if (errno === 'ENOENT' || errno === 'ENOTDIR') return null;
      throw fromFileError(error, 'read', file);
    }
  }

  async *#keysBelow(folder: string, signal: AbortSignal | undefined): AsyncIterable<string> {
    throwIfAborted(signal);
    const entries = await readdir(path.join(this.#root, folder), { withFileTypes: true }).catch((error: unknown) => {
      const errno = (error as NodeJS.ErrnoException).code;
      if (errno === 'ENOENT' || errno === 'ENOTDIR') return [];
      throw fromFileError(error, 'list', path.join(this.#root, folder));
    });
    for (const entry of entries) {
      if (entry.name.startsWith(RESERVED_SEGMENT_PREFIX)) continue;
      const key = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory()) yield* this.#keysBelow(key, signal);
      else yield key;
    }
  }

  #readError(error: unknown, key: string): CoveyError {
    const errno = (error as NodeJS.ErrnoException | undefined)?.code;
    if (errno === 'ENOENT' || errno === 'ENOTDIR' || errno === 'EISDIR') return objectNotFound(this.url, key, error);
    return fromFileError(error, 'read', path.join(this.#root, key));
  }
}

function rootOf(url: string): string {
  try {
    return path.resolve(fileURLToPath(url));
  } catch (cause) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot open a file store: not a file URL with an absolute path: ${url}; write file:///folder`,
      { cause },
    );
  }
}

async function readExactly(handle: FileHandle, offset: number, length: number, key: string): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  for (let filled = 0; filled < length; ) {
    const { bytesRead } = await handle.read(bytes, filled, length - filled, offset + filled);
    if (bytesRead === 0) {
      throw new CoveyError(
        'DATA_CORRUPT',
        `Cannot read ${key}: the file ended after ${offset + filled} bytes, ${offset + length} expected`,
        { fields: { key } },
      );
    }
    filled += bytesRead;
  }
  return bytes;
}

/** Copies and syncs; returns the copy's etag. */
async function copyDurably(from: string, to: string): Promise<string> {
  await copyFile(from, to);
  // r+: fsync through a read-only descriptor is not promised everywhere.
  const handle = await open(to, 'r+');
  try {
    await handle.sync();
    return await etagOf(handle, await handle.stat());
  } finally {
    await handle.close();
  }
}

/** Removes what a failed write left, if it got that far; must not replace the failure's own error. */
async function removeTemporary(temporary: string): Promise<void> {
  await rm(temporary, { force: true }).catch((error: unknown) => {
    // A folder of the path is a file: then nothing was written either.
    if ((error as NodeJS.ErrnoException).code !== 'ENOTDIR') throw fromFileError(error, 'remove', temporary);
  });
}

/** Makes a rename survive a power cut. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function etagOf(handle: FileHandle, stats: Stats): Promise<string> {
  return stats.size > HASHED_BYTES_MAX ? etagOfStats(stats) : sha256Hex(await handle.readFile());
}

function sha256Hex(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A rename keeps inode and modification time, so the etag known before putting the file in place stays true. */
function etagOfStats(stats: Stats): string {
  return `stat-${stats.size.toString(16)}-${stats.ino.toString(16)}-${stats.mtimeMs.toString(16)}`;
}
