// Where the addon is built to and loaded from; engine/native/load.ts says the same to the program.
import path from 'node:path';

const root = path.dirname(path.dirname(new URL(import.meta.url).pathname));

/** COVEY_ADDON, or build/covey_engine.node. */
export function addonPath(env = process.env) {
  return env.COVEY_ADDON ? path.resolve(env.COVEY_ADDON) : path.join(root, 'build/covey_engine.node');
}
