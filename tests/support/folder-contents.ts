import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';

/** The time that reports carry. */
const TIME = /\d{4}-\d\d-\d\dT[\d:.]+Z/g;

/** Every file below a folder by its path, without the times of reports; `.part` and hidden ones as well. */
export async function folderContents(folder: string): Promise<Map<string, Buffer>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name));
  const read = async (file: string) => {
    const bytes = await readFile(file);
    return file.endsWith('.html') ? Buffer.from(bytes.toString('utf8').replace(TIME, 'TIME')) : bytes;
  };
  return new Map(
    await Promise.all(files.sort().map(async (file) => [path.relative(folder, file), await read(file)] as const)),
  );
}
