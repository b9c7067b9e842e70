import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import path from 'node:path';

const RUN_FOLDER = /^demo-\d{8}-\d{6}$/;

/**
 * Takes the checkpoints of finished demos away, all but those of the newest `keep`: each holds some 70 MB. Reports, logs and
 * summaries stay. A demo that has not finished, or still runs, has no summary and is left alone.
 */
export async function tidyOldRuns(workDir: string, keep: number): Promise<string[]> {
  const folders = (await readdir(workDir)).filter((name) => RUN_FOLDER.test(name)).sort();
  const finished = folders
    .map((name) => path.join(workDir, name))
    .filter((folder) => existsSync(path.join(folder, 'summary.json')) && existsSync(path.join(folder, 'store')));
  const old = finished.slice(0, Math.max(0, finished.length - keep)).map((folder) => path.join(folder, 'store'));
  for (const store of old) await rm(store, { recursive: true, force: true });
  return old;
}
