import { type FileHandle, open, stat } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Clock, systemClock } from '../../common/clock.ts';
import { CoveyError, throwIfAborted } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { CacheFolder } from './cache-folder.ts';
import type { DatasetShard } from './dataset.ts';
import { sha256OfFile } from './sha256.ts';

export interface ShardCacheOptions {
  /** Folder of the cache; its own sub-folder is made in it. Several processes of one host may share it. */
  readonly dir: string;
  /** Most bytes of all shards in the folder. One shard must fit. */
  readonly bytesMax: number;
  /** Downloads of a shard whose bytes do not verify before it is given up. Default 3. */
  readonly attemptsMax?: number;
  /** Files held open. Default 64. */
  readonly openFilesMax?: number;
}

export interface ShardCacheModules {
  readonly store: ObjectStore;
  readonly logger: Logger;
  readonly clock?: Clock;
  readonly metrics?: ShardCacheMetrics | null;
}

export interface ShardCacheMetrics {
  /** One per shard opened, not per sample read. */
  request(result: 'hit' | 'miss' | 'in_place'): void;
  eviction(): void;
  /** Bytes in the folder of all processes that share it; told after a download, and when the first shard is found there. */
  size(bytes: number): void;
}

interface OpenShard {
  readonly opening: Promise<FileHandle>;
  /** Set once open. */
  file?: FileHandle;
  /** Reads in flight or waiting for the file; it is closed only at 0. */
  readers: number;
}

const RETRY_FIRST_MS = 200;

/**
 * Reads parts of shards through a bounded local disk cache. A shard is downloaded whole, verified against the manifest's SHA-256
 * and only then visible under its hash; the least recently used ones go first. A `file://` store is read in place, without a
 * copy (each shard is hashed once per process). Whoever makes it closes it; open files outlive their eviction.
 */
export class ShardCache {
  readonly #options: ShardCacheOptions;
  readonly #store: ObjectStore;
  readonly #logger: Logger;
  readonly #clock: Clock;
  readonly #metrics: ShardCacheMetrics | null;
  readonly #folder: CacheFolder;
  /** Insertion order is order of use. */
  readonly #open = new Map<string, OpenShard>();
  readonly #closing = new AbortController();
  #sizeTold = false;

  constructor(options: ShardCacheOptions, modules: ShardCacheModules) {
    this.#options = options;
    this.#store = modules.store;
    this.#logger = modules.logger;
    this.#clock = modules.clock ?? systemClock;
    this.#metrics = modules.metrics ?? null;
    this.#folder = new CacheFolder(
      { dir: options.dir, bytesMax: options.bytesMax },
      {
        logger: modules.logger,
        clock: this.#clock,
        inUse: (sha256) => this.#open.has(sha256),
        release: () => this.#closeIdle(Number.POSITIVE_INFINITY),
        onEviction: () => this.#metrics?.eviction(),
      },
    );
  }

  /**
   * Bytes [offset, offset + size) of a shard. Throws DATA_CORRUPT naming the shard where its bytes do not verify,
   * RESOURCE_EXHAUSTED where the cache cannot hold it, and what the store throws.
   */
  async read(shard: DatasetShard, offset: number, size: number, signal?: AbortSignal): Promise<Uint8Array> {
    throwIfAborted(signal);
    const entry = this.#acquire(shard);
    try {
      const file = await entry.opening;
      throwIfAborted(signal);
      const bytes = new Uint8Array(size);
      let done = 0;
      while (done < size) {
        const { bytesRead } = await file.read(bytes, done, size - done, offset + done);
        if (bytesRead === 0) throw corrupt(shard, `it ends before byte ${offset + size}`);
        done += bytesRead;
      }
      return bytes;
    } finally {
      entry.readers--;
    }
  }

  /** Makes a shard present, ahead of its first read. */
  async prefetch(shard: DatasetShard): Promise<void> {
    const entry = this.#acquire(shard);
    try {
      await entry.opening;
    } finally {
      entry.readers--;
    }
  }

  async close(): Promise<void> {
    this.#closing.abort(new CoveyError('CANCELLED', 'the shard cache is closed'));
    const entries = [...this.#open.values()];
    this.#open.clear();
    for (const opened of await Promise.allSettled(entries.map((entry) => entry.opening))) {
      if (opened.status === 'fulfilled') await opened.value.close();
    }
  }

  /** Counts the caller as a reader at once, so that nobody closes the file before it reads. */
  #acquire(shard: DatasetShard): OpenShard {
    throwIfAborted(this.#closing.signal);
    const entry = this.#open.get(shard.sha256) ?? this.#startOpening(shard);
    entry.readers++;
    this.#open.delete(shard.sha256);
    this.#open.set(shard.sha256, entry);
    return entry;
  }

  #startOpening(shard: DatasetShard): OpenShard {
    // Shared by all readers, so no one reader's signal ends it; close() does.
    const entry: OpenShard = { opening: this.#openFile(shard), readers: 0 };
    entry.opening.then(
      async (file) => {
        entry.file = file;
        await this.#closeIdle(this.#open.size - (this.#options.openFilesMax ?? 64));
      },
      () => this.#open.delete(shard.sha256),
    );
    return entry;
  }

  /** Closes up to `limit` files nobody is reading, least recently used first. */
  async #closeIdle(limit: number): Promise<void> {
    let closed = 0;
    for (const [sha256, entry] of [...this.#open]) {
      if (closed >= limit) return;
      if (entry.file === undefined || entry.readers > 0) continue;
      this.#open.delete(sha256);
      closed++;
      await entry.file.close();
    }
  }

  async #openFile(shard: DatasetShard): Promise<FileHandle> {
    return open(this.#store.url.startsWith('file://') ? await this.#inPlace(shard) : await this.#cached(shard), 'r');
  }

  async #inPlace(shard: DatasetShard): Promise<string> {
    const file = path.join(fileURLToPath(this.#store.url), shard.storeKey);
    const found = await stat(file).catch(() => undefined);
    if (found === undefined)
      throw new CoveyError('NOT_FOUND', `Cannot read shard ${shard.key}: ${file} is missing`, {
        fields: { shard: shard.key },
      });
    const { sha256 } = await sha256OfFile(file, this.#closing.signal);
    if (sha256 !== shard.sha256) throw corrupt(shard, `SHA-256 is ${sha256}, the manifest says ${shard.sha256}`);
    this.#metrics?.request('in_place');
    return file;
  }

  async #cached(shard: DatasetShard): Promise<string> {
    if (shard.bytes > this.#options.bytesMax) {
      throw new CoveyError(
        'RESOURCE_EXHAUSTED',
        `Cannot cache shard ${shard.key}: it has ${shard.bytes} bytes, data.cacheBytesMax is ${this.#options.bytesMax}; raise it`,
        {
          fields: { shard: shard.key, bytes: shard.bytes, cacheBytesMax: this.#options.bytesMax },
        },
      );
    }
    const { file, fetched } = await this.#folder.ensure(
      shard.sha256,
      shard.bytes,
      (to) => this.#download(shard, to),
      this.#closing.signal,
    );
    this.#metrics?.request(fetched ? 'miss' : 'hit');
    if (fetched || !this.#sizeTold) {
      this.#sizeTold = true;
      this.#metrics?.size(await this.#folder.sizeBytes());
    }
    return file;
  }

  async #download(shard: DatasetShard, to: string): Promise<void> {
    const attemptsMax = this.#options.attemptsMax ?? 3;
    for (let attempt = 1; ; attempt++) {
      await this.#store.getFile(shard.storeKey, to, { signal: this.#closing.signal });
      const seen = await sha256OfFile(to, this.#closing.signal);
      if (seen.sha256 === shard.sha256) return;
      if (attempt === attemptsMax) {
        throw corrupt(
          shard,
          `after ${attemptsMax} downloads SHA-256 is ${seen.sha256} (${seen.bytes} bytes), the manifest says ${shard.sha256} (${shard.bytes} bytes)`,
        );
      }
      this.#logger.warn({ shard: shard.key, attempt, sha256: seen.sha256 }, 'shard did not verify; downloading again');
      await this.#clock.sleep(RETRY_FIRST_MS * 2 ** (attempt - 1), this.#closing.signal);
    }
  }
}

function corrupt(shard: DatasetShard, detail: string): CoveyError {
  return new CoveyError('DATA_CORRUPT', `Cannot use shard ${shard.key}: ${detail}; restore or pack it again`, {
    fields: { shard: shard.key },
  });
}
