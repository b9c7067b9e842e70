import { readFile } from 'node:fs/promises';
import { CoveyError } from './errors.ts';
import { fromFileError } from './file-errors.ts';
import { writeWhole } from './whole-file.ts';

/** What a JSON file holds, or undefined where there is none. @throws CoveyError DATA_CORRUPT where it is not JSON, else as `fromFileError` */
export async function readJsonFile(file: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (thrown) {
    const error = fromFileError(thrown, 'read', file);
    if (CoveyError.is(error, 'NOT_FOUND')) return undefined;
    throw error;
  }
  try {
    return JSON.parse(text);
  } catch (thrown) {
    throw new CoveyError('DATA_CORRUPT', `Cannot read ${file}: it is not JSON; delete it, or choose another folder`, {
      cause: thrown,
      fields: { file },
    });
  }
}

/** Writes a value for people to read, whole or not at all. @throws CoveyError as `fromFileError` */
export function writeJsonFile(file: string, value: unknown): Promise<void> {
  return writeWhole(file, `${JSON.stringify(value, null, 2)}\n`);
}
