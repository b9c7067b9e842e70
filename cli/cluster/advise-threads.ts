import type { RunConfig } from '../../common/config/run-config.ts';
import { findDevices } from '../../engine/devices.ts';
import { threadHint } from '../../worker/train/thread-hint.ts';
import type { CommandContext } from '../context.ts';
import { threadsOf } from './local-cluster.ts';

/** Of a local cluster: says where fewer threads and more workers would be faster. */
export function adviseThreads(config: RunConfig, workers: number, { output }: CommandContext): void {
  const onGpu = config.workers.device !== 'cpu' && hasGpu();
  const hint = threadHint(config, { threads: threadsOf(workers), workers, onGpu });
  if (hint !== undefined) output.message(`hint: ${hint}`);
}

/** False also where the engine torch is missing. */
function hasGpu(): boolean {
  try {
    return findDevices().devices.length > 1;
  } catch {
    return false;
  }
}
