import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import type { z } from 'zod';
import { CoveyError } from '../../common/errors.ts';
import { fromFileError } from '../../common/file-errors.ts';
import { makeFolder } from '../../common/whole-file.ts';
import { type ModelFiles, readWhole } from './byte-source.ts';

/** Configs and tokenizers; that of CLIP's 49,408 tokens has 3.6 MB. */
const TEXT_BYTES_MAX = 64 * 2 ** 20;

/** Writes files by name, making the folder; see `writeTogether` for how they are left whole. @returns their paths */
export async function writeFiles(dir: string, files: Readonly<Record<string, string | Uint8Array>>): Promise<string[]> {
  const written: string[] = [];
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(dir, name);
    await makeFolder(path.dirname(file));
    await writeFile(file, content).catch((thrown: unknown) => {
      throw fromFileError(thrown, 'write', file);
    });
    written.push(file);
  }
  return written;
}

/** A text file of a model, or undefined where there is none. */
export async function readText(files: ModelFiles, name: string): Promise<string | undefined> {
  const bytes = await readWhole(files, name, TEXT_BYTES_MAX);
  return bytes && new TextDecoder().decode(bytes);
}

/** JSON for people and programs alike. */
export const prettyJson = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`;

/** JSON of a known form. @throws CoveyError UNSUPPORTED with every key that covey does not know or lacks */
export function parseConfig<T>(schema: z.ZodType<T>, text: string, file: string): T {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new CoveyError('DATA_CORRUPT', `Cannot load the model: ${file} is not JSON`, {
      cause: error,
      fields: { file },
    });
  }
  const result = schema.safeParse(json);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
  throw new CoveyError(
    'UNSUPPORTED',
    `Cannot load the model: ${file} is not a model that covey can run: ${problems.join('; ')}`,
    { fields: { file, problems } },
  );
}
