import type { RunConfig } from '../common/config/run-config.ts';
import { CoveyError } from '../common/errors.ts';
import type { ObjectStore } from '../common/objectstore/object-store.ts';
import type { CheckpointManifest } from '../worker/checkpoint/checkpoint-format.ts';
import { type ListedCheckpoint, listCheckpoints, newestVerified } from '../worker/checkpoint/checkpoint-registry.ts';
import { readManifest } from '../worker/checkpoint/read-checkpoint.ts';
import { parseRunConfig, readRunConfig } from '../worker/checkpoint/run-config-file.ts';
import type { CommandContext } from './context.ts';
import { withStore } from './open-store.ts';
import { withRunClient } from './run-connection.ts';

/** A run as its store holds it: usable while it trains, after it ended, and without any coordinator. */
export interface StoredRun {
  readonly name: string;
  readonly config: RunConfig;
  readonly store: ObjectStore;
}

/** Options shared by the commands that read a run from its store. */
export interface StoredRunOptions {
  /** URL of the store; then no coordinator is asked. */
  readonly store?: string;
}

/**
 * Opens a run's store, hands the run over, closes the store on every path. With `--store` the config comes from the store itself,
 * otherwise from the coordinator.
 */
export async function withStoredRun<T>(
  context: CommandContext,
  name: string,
  options: StoredRunOptions,
  work: (run: StoredRun) => Promise<T>,
): Promise<T> {
  const config = options.store === undefined ? await configFromCoordinator(context, name) : undefined;
  return withStore(context, options.store ?? config!.store, async (store) =>
    work({ name, config: config ?? (await readRunConfig(store, name, context.signal)), store }),
  );
}

async function configFromCoordinator(context: CommandContext, name: string): Promise<RunConfig> {
  const run = await withRunClient(context, (client) => client.getRun(name, { signal: context.signal }));
  return parseRunConfig(run.configJson, `the coordinator's config of run ${name}`);
}

/**
 * The checkpoint of a step, or without one the newest whose every byte verifies.
 * @throws CoveyError NOT_FOUND
 */
export async function findCheckpoint(
  run: StoredRun,
  step: number | undefined,
  signal: AbortSignal,
): Promise<CheckpointManifest> {
  let found: ListedCheckpoint | undefined;
  if (step === undefined) found = await newestVerified(run.store, run.name, signal);
  else found = (await listCheckpoints(run.store, run.name, signal)).findLast((one) => one.step === step);
  if (!found) {
    const which = step === undefined ? 'a usable checkpoint' : `a checkpoint of step ${step}`;
    throw new CoveyError(
      'NOT_FOUND',
      `Cannot find ${which} of run ${run.name} in ${run.store.url}; \`covey ckpt ls ${run.name}\` lists what is there`,
    );
  }
  return readManifest(run.store, found.manifestKey, { signal });
}
