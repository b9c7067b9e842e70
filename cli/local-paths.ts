import path from 'node:path';
import { pathToFileURL } from 'node:url';

/** A URL as it is; a plain path means a folder on this machine. */
export function storeUrl(given: string): string {
  return given.includes('://') ? given : pathToFileURL(path.resolve(given)).href;
}
