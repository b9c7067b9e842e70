import { mkdir, rename, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fromFileError } from './file-errors.ts';

/** Makes a folder and those above it. @throws CoveyError as `fromFileError` */
export async function makeFolder(folder: string): Promise<string> {
  try {
    await mkdir(folder, { recursive: true });
    return folder;
  } catch (thrown) {
    throw fromFileError(thrown, 'make the folder', folder);
  }
}

/**
 * Writes a file whole or not at all: killed at any moment, or on a full disk, what was there before stays. What a killed process left beside it
 * (`FILE.part`) is overwritten by the next.
 * @throws CoveyError as `fromFileError`
 */
export async function writeWhole(file: string, content: string | Uint8Array): Promise<void> {
  const part = `${file}.part`;
  try {
    await writeFile(part, content);
    await rename(part, file);
  } catch (thrown) {
    // What it takes is wanted by whoever makes room; where it cannot be removed, the first error is the one to tell.
    await rm(part, { force: true }).catch(() => undefined);
    throw fromFileError(thrown, 'write', file);
  }
}

const STAGING = '.part';

/**
 * Writes several files that belong together: `write` puts them into a folder beside, and they take their places once all of them are there, so
 * that no moment shows some of a new set among those of an old one for longer than the renames take.
 * @returns the paths, in `write`'s order
 */
export async function writeTogether(
  folder: string,
  write: (staging: string) => Promise<readonly string[]>,
): Promise<string[]> {
  const staging = path.join(folder, STAGING);
  await makeFolder(folder);
  try {
    await rm(staging, { recursive: true, force: true });
    const staged = await write(staging);
    const files = staged.map((file) => path.join(folder, path.relative(staging, file)));
    for (const [i, file] of files.entries()) {
      await makeFolder(path.dirname(file));
      await rename(staged[i]!, file);
    }
    return files;
  } catch (thrown) {
    throw fromFileError(thrown, 'write into', folder);
  } finally {
    await rm(staging, { recursive: true, force: true }).catch(() => undefined);
  }
}
