import { existsSync } from 'node:fs';
import { findTfjsNode } from '../../engine/backend/tfjs-node.ts';
import type { EngineName } from '../../engine/capabilities.ts';
import { addonPath } from '../../engine/native/load.ts';

/** For tests of the torch engine alone. */
export const hasTorch = existsSync(addonPath());

/** For tests of the tensorflow engine alone: true once `npm run tensorflow:build` was run, or where tfjs-node is installed. */
export const hasTensorflow = findTfjsNode() !== undefined;

/** Engines that this machine can run: `cpu` and `wasm` always, the others where they are built. */
export const engineNames: readonly EngineName[] = [
  'cpu',
  'wasm',
  ...(hasTorch ? (['torch'] as const) : []),
  ...(hasTensorflow ? (['tensorflow'] as const) : []),
];

/** What `auto` can be: kernels of our own, and plain tfjs ops. Whoever trains is tested on both. */
export const autoEngines: readonly EngineName[] = hasTorch ? ['wasm', 'torch'] : ['wasm'];
