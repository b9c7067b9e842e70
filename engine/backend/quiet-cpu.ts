import type { MathBackendCPU } from '../tf.ts';

/** Keeps tfjs's JavaScript backend from advertising another package at its first write. */
export function quiet(cpu: MathBackendCPU): MathBackendCPU {
  (cpu as unknown as { firstUse: boolean }).firstUse = false;
  return cpu;
}
