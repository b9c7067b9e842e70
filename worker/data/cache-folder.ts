import { mkdir, open, readdir, readFile, rename, rm, stat, utimes } from 'node:fs/promises';
import path from 'node:path';
import type { Clock } from '../../common/clock.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';

/** Its own sub-folder and its own name patterns: nothing else is ever counted or deleted. */
const FOLDER = 'covey-shards-v1';
const SHARD_NAME = /^([0-9a-f]{64})\.tar$/;
const PART_NAME = /^[0-9a-f]{64}\.(\d+)\.part$/;
const LOCK_POLL_MS = 50;
const LOCK_UNWRITTEN_MS_MAX = 10_000;
/** A download by another process that takes longer is not waited for; this process then downloads itself. */
const LOCK_WAIT_MS_MAX = 15 * 60_000;

interface CachedFile {
  readonly name: string;
  readonly sha256: string;
  readonly bytes: number;
  readonly usedAtMs: number;
}

export interface CacheFolderModules {
  readonly logger: Logger;
  readonly clock: Clock;
  /** Shards this process has open: evicted last. */
  readonly inUse: (sha256: string) => boolean;
  /** Closes what is open but idle, so that its space comes free. */
  readonly release: () => Promise<void>;
  readonly onEviction: () => void;
}

/**
 * Files named by their SHA-256 in a folder of bounded size, shared by processes of one host. A file appears by rename, complete.
 * One process downloads a file, the others wait for it (a lock file holds the downloader's pid; a dead one's lock is void).
 * Removing a file that another process is reading is safe: POSIX keeps the bytes until the last descriptor closes.
 */
export class CacheFolder {
  readonly #dir: string;
  readonly #bytesMax: number;
  readonly #modules: CacheFolderModules;

  constructor(options: { readonly dir: string; readonly bytesMax: number }, modules: CacheFolderModules) {
    this.#dir = path.join(options.dir, FOLDER);
    this.#bytesMax = options.bytesMax;
    this.#modules = modules;
  }

  /**
   * The path of a file, fetched by `download` (which writes and verifies a temporary path) where it is missing. Throws
   * RESOURCE_EXHAUSTED where the disk is full and nothing is left to evict.
   */
  async ensure(
    sha256: string,
    bytes: number,
    download: (to: string) => Promise<void>,
    signal: AbortSignal,
  ): Promise<{ readonly file: string; readonly fetched: boolean }> {
    const file = path.join(this.#dir, `${sha256}.tar`);
    if (await this.#present(file, bytes)) return { file, fetched: false };
    await mkdir(this.#dir, { recursive: true });
    const unlock = await this.#lock(sha256, signal);
    try {
      // Another process may have brought it while this one waited.
      if (await this.#present(file, bytes)) return { file, fetched: false };
      await this.#removeDeadParts();
      await this.#fetch(file, sha256, bytes, download);
      return { file, fetched: true };
    } finally {
      await unlock();
    }
  }

  /** Bytes of all cached shards. */
  async sizeBytes(): Promise<number> {
    return (await this.#files()).reduce((sum, file) => sum + file.bytes, 0);
  }

  async #present(file: string, bytes: number): Promise<boolean> {
    const found = await stat(file).catch(() => undefined);
    if (found === undefined) return false;
    if (found.size !== bytes) {
      // Renamed whole and verified, so someone else has changed it.
      await rm(file, { force: true });
      return false;
    }
    const now = this.#modules.clock.now() / 1000;
    await utimes(file, now, now).catch(() => undefined);
    return true;
  }

  async #fetch(file: string, sha256: string, bytes: number, download: (to: string) => Promise<void>): Promise<void> {
    const part = path.join(this.#dir, `${sha256}.${process.pid}.part`);
    await this.#makeRoom(bytes);
    try {
      for (;;) {
        try {
          await download(part);
          await rename(part, file);
          return;
        } catch (thrown) {
          if (!isDiskFull(thrown)) throw thrown;
          await rm(part, { force: true });
          if (await this.#evictOne()) continue;
          throw new CoveyError(
            'RESOURCE_EXHAUSTED',
            `Cannot cache a shard of ${bytes} bytes: the disk of ${this.#dir} is full and nothing is left to evict; free space or set data.cacheDir`,
            {
              cause: thrown,
              fields: { dir: this.#dir, bytes },
            },
          );
        }
      }
    } finally {
      await rm(part, { force: true });
    }
  }

  async #makeRoom(bytes: number): Promise<void> {
    while ((await this.sizeBytes()) + bytes > this.#bytesMax) {
      if (!(await this.#evictOne())) return;
    }
  }

  /** Removes the least recently used shard; one this process has open only when no other is left. */
  async #evictOne(): Promise<boolean> {
    const files = (await this.#files()).sort((a, b) => a.usedAtMs - b.usedAtMs || (a.name < b.name ? -1 : 1));
    let victim = files.find((file) => !this.#modules.inUse(file.sha256));
    if (victim === undefined) {
      await this.#modules.release();
      victim = files.find((file) => !this.#modules.inUse(file.sha256));
    }
    if (victim === undefined) return false;
    await rm(path.join(this.#dir, victim.name), { force: true });
    this.#modules.onEviction();
    this.#modules.logger.debug({ sha256: victim.sha256, bytes: victim.bytes }, 'shard evicted');
    return true;
  }

  async #files(): Promise<CachedFile[]> {
    const files: CachedFile[] = [];
    for (const name of await readdir(this.#dir).catch(() => [])) {
      const match = SHARD_NAME.exec(name);
      const found = match === null ? undefined : await stat(path.join(this.#dir, name)).catch(() => undefined);
      if (found?.isFile()) files.push({ name, sha256: match![1]!, bytes: found.size, usedAtMs: found.mtimeMs });
    }
    return files;
  }

  /** What a killed process left half-written. */
  async #removeDeadParts(): Promise<void> {
    for (const name of await readdir(this.#dir)) {
      const match = PART_NAME.exec(name);
      if (match !== null && !isAlive(Number(match[1]))) await rm(path.join(this.#dir, name), { force: true });
    }
  }

  /** A lock without a pid is being written or removed; one that stays so belongs to a process that died in between. */
  async #isAbandoned(lock: string): Promise<boolean> {
    const found = await stat(lock).catch(() => undefined);
    return found !== undefined && this.#modules.clock.now() - found.mtimeMs > LOCK_UNWRITTEN_MS_MAX;
  }

  async #lock(sha256: string, signal: AbortSignal): Promise<() => Promise<void>> {
    const lock = path.join(this.#dir, `${sha256}.lock`);
    const deadlineMs = this.#modules.clock.now() + LOCK_WAIT_MS_MAX;
    for (;;) {
      try {
        const handle = await open(lock, 'wx');
        await handle.writeFile(String(process.pid));
        await handle.close();
        return () => rm(lock, { force: true });
      } catch (thrown) {
        if ((thrown as NodeJS.ErrnoException).code === 'ENOSPC') {
          await rm(lock, { force: true });
          if (await this.#evictOne()) continue;
        }
        if ((thrown as NodeJS.ErrnoException).code !== 'EEXIST') throw diskError(thrown, this.#dir);
      }
      const owner = Number(await readFile(lock, 'utf8').catch(() => '0'));
      if (owner > 0 ? !isAlive(owner) : await this.#isAbandoned(lock)) await rm(lock, { force: true });
      else if (this.#modules.clock.now() > deadlineMs) return async () => undefined;
      else await this.#modules.clock.sleep(LOCK_POLL_MS, signal);
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (thrown) {
    return (thrown as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/** ENOSPC or EDQUOT anywhere in the chain of causes. */
export function isDiskFull(thrown: unknown): boolean {
  for (let error = thrown; error instanceof Error; error = error.cause) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOSPC' || code === 'EDQUOT') return true;
  }
  return false;
}

function diskError(thrown: unknown, dir: string): CoveyError {
  const code = isDiskFull(thrown) ? 'RESOURCE_EXHAUSTED' : 'PERMISSION_DENIED';
  return new CoveyError(
    code,
    `Cannot use the shard cache folder ${dir}: ${thrown instanceof Error ? thrown.message : thrown}; set data.cacheDir`,
    { cause: thrown },
  );
}
