import path from 'node:path';
import { CoveyError } from '../../common/errors.ts';
import { readJsonFile, writeJsonFile } from '../../common/json-file.ts';

/**
 * Notes in a file what a folder's training is of; where the file is there, the training is only gone on with where all of it is the same.
 * @param what in words: `fine-tuning` @throws CoveyError INVALID_ARGUMENT naming what differs
 */
export async function expectSameTask(file: string, what: string, facts: object): Promise<void> {
  const wanted: Record<string, unknown> = JSON.parse(JSON.stringify(facts));
  const found = (await readJsonFile(file)) as Record<string, unknown> | undefined;
  if (found === undefined) {
    await writeJsonFile(file, wanted);
    return;
  }
  const keys = new Set([...Object.keys(wanted), ...Object.keys(found)]);
  const different = [...keys].filter((key) => JSON.stringify(wanted[key]) !== JSON.stringify(found[key]));
  if (different.length === 0) return;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot go on in ${path.dirname(file)}: another ${what} is there (${different.join(', ')} differ); choose another folder with --out`,
    { fields: { different } },
  );
}
