import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';

/** A URL as it is; a plain path means a folder on this machine. */
export function storeUrl(given: string): string {
  return given.includes('://') ? given : pathToFileURL(path.resolve(given)).href;
}

/** Where shards are kept for commands whose run names no folder. */
export function defaultCacheDir(): string {
  return path.join(os.homedir(), '.cache', 'covey');
}
