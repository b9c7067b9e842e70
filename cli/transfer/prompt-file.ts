import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { CoveyError } from '../../common/errors.ts';

const FILE_BYTES_MAX = 64 * 2 ** 20;

/**
 * A file of templates or classes.
 * @param instead what else may be given, said where there is no such file
 * @throws CoveyError INVALID_ARGUMENT for what is no file, or too large
 */
export async function readPromptFile(file: string, instead: string): Promise<string> {
  const found = await stat(file).catch(() => undefined);
  if (!found?.isFile()) {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot read ${file}: there is no such file; ${instead}`, {
      fields: { file: path.resolve(file) },
    });
  }
  if (found.size > FILE_BYTES_MAX) {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot read ${file}: ${found.size} bytes are too many for such a file`);
  }
  return readFile(file, 'utf8');
}
