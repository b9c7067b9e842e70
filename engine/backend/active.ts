import { internals } from '../tfjs-internals.ts';

/** Name of our tfjs backend over libtorch. */
export const TORCH_BACKEND = 'torch';

/** True while the current tfjs backend of this thread is ours, so that fused kernels apply. */
export function onTorch(): boolean {
  return internals().backendName === TORCH_BACKEND;
}
