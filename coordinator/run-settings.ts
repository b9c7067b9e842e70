import { type RunConfig, runConfigSchema } from '../common/config/run-config.ts';
import { CoveyError } from '../common/errors.ts';
import type { RunSettings } from './core/types.ts';

const JOIN_COALESCE_MS = 200;
/** Beyond the collective timeout: a worker that hangs longer than its own limit is stuck. */
const QUIESCE_MARGIN_MS = 30_000;
const HEAL_TIMEOUT_MS = 10 * 60_000;
const CHECKPOINT_TIMEOUT_MS = 10 * 60_000;

/** Reads a submitted config. CONFIG_INVALID names every problem. */
export function parseRunConfig(configJson: string): RunConfig {
  let parsed: unknown;
  try {
    parsed = JSON.parse(configJson);
  } catch (thrown) {
    throw new CoveyError('CONFIG_INVALID', `Cannot read the run config: not JSON: ${String(thrown)}`, {
      cause: thrown,
    });
  }
  const result = runConfigSchema.safeParse(parsed);
  if (result.success) return result.data;
  const problems = result.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
  throw new CoveyError('CONFIG_INVALID', `Cannot accept the run config: ${problems.join('; ')}`, {
    fields: { problems },
  });
}

/** What the core needs to know of a config. */
export function settingsOf(config: RunConfig): RunSettings {
  return {
    run: config.run,
    totalSteps: config.train.steps,
    laneCount: config.train.lanes,
    workersMin: config.workers.min,
    workersExpected: Math.max(config.workers.min, config.workers.expected),
    joinWaitMs: config.workers.joinWaitSeconds * 1000,
    leaseTtlMs: config.timing.leaseSeconds * 1000,
    joinCoalesceMs: JOIN_COALESCE_MS,
    quiesceTimeoutMs: config.timing.collectiveTimeoutSeconds * 1000 + QUIESCE_MARGIN_MS,
    healTimeoutMs: HEAL_TIMEOUT_MS,
    checkpointTimeoutMs: CHECKPOINT_TIMEOUT_MS,
    checkpointsKept: config.checkpoint.keepLast,
  };
}
