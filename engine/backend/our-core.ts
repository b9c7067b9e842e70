import { createRequire } from 'node:module';
import * as tf from '../tf.ts';

/** These packages are compiled to constructors that call their parent as a function, which a class does not allow. */
function KernelBackend(): void {
  // The parent's constructor does nothing.
}
KernelBackend.prototype = tf.KernelBackend.prototype;

const core = { ...tf, KernelBackend };
const CORE_NAMES = ['@tensorflow/tfjs', '@tensorflow/tfjs-core'];

/**
 * Requires a CommonJS file of a tfjs backend package in such a way that what it takes from tfjs-core comes from our bundle: one engine, one
 * registry of kernels, one class of tensors, also where the package has a copy of its own beside it. Must be the first load of the package.
 *
 * @param file absolute path
 */
export function requireOnOurCore(file: string): unknown {
  const require = createRequire(file);
  const replaced = new Map<string, NodeModule | undefined>();
  for (const name of CORE_NAMES) {
    let target: string;
    try {
      target = require.resolve(name);
    } catch {
      continue; // a package needs one of the two names, not both
    }
    replaced.set(target, require.cache[target]);
    require.cache[target] = { id: target, filename: target, loaded: true, exports: core, children: [] } as never;
  }
  try {
    return require(file);
  } finally {
    for (const [target, before] of replaced) {
      if (before) require.cache[target] = before;
      else delete require.cache[target];
    }
  }
}
