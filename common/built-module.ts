import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { CoveyError } from './errors.ts';

/** The folder of covey's package.json, whether this file runs from source or from dist. */
export function packageRoot(): string {
  let folder = path.dirname(fileURLToPath(import.meta.url));
  while (!existsSync(path.join(folder, 'package.json'))) {
    const parent = path.dirname(folder);
    if (parent === folder) throw new CoveyError('INTERNAL', 'package.json not found above the installed files');
    folder = parent;
  }
  return folder;
}

/** URL of a compiled module, for worker threads and child processes, which cannot run TypeScript. `module` is the path from the
 * root without extension, e.g. `worker/collectives/comms-thread`. */
export function builtModule(module: string): URL {
  const file = path.join(packageRoot(), 'dist', `${module}.js`);
  if (!existsSync(file))
    throw new CoveyError('UNSUPPORTED', `covey is not built: ${file} is missing; run \`npm run build\``);
  return pathToFileURL(file);
}
