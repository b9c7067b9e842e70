import { existsSync } from 'node:fs';
import { addonPath } from '../../engine/native/load.ts';

/** Engines that this machine can run: `cpu` always, `torch` where its addon is built. */
export const engineNames = existsSync(addonPath()) ? (['cpu', 'torch'] as const) : (['cpu'] as const);

/** For tests of the torch engine alone. */
export const hasTorch = existsSync(addonPath());
