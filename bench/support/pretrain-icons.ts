import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { startLocalCluster } from '../../cli/cluster/local-cluster.ts';
import { type DemoDataset, prepareDataset } from '../../cli/demo/dataset.ts';
import { demoRunConfig } from '../../cli/demo/recipe.ts';
import { trainRun } from '../../cli/demo/train-run.ts';
import { systemClock } from '../../common/clock.ts';
import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import { RunClient } from '../../proto/run-client.ts';

export interface PretrainOptions {
  readonly workDir: string;
  /** Set that no picture of is trained on. */
  readonly heldOut: string;
  readonly run: string;
  readonly steps: number;
  readonly seed: number;
  /** What differs from the demo's config. */
  readonly change?: (config: RunConfig) => RunConfig;
}

export interface PretrainModules {
  readonly logger: Logger;
  readonly signal: AbortSignal;
  readonly say: (text: string) => void;
}

export interface PretrainedIcons {
  readonly config: RunConfig;
  readonly dataset: DemoDataset;
  readonly seconds: number;
}

const SAY_STEPS = 50;

/**
 * Pretrains on the icon pictures of all sets but one, the way a user's run goes: coordinator, worker process, checkpoints. A run of that name that
 * has finished in the work directory is taken as it is.
 */
export async function pretrainIcons(options: PretrainOptions, modules: PretrainModules): Promise<PretrainedIcons> {
  const { workDir, heldOut, run, steps, seed } = options;
  const { logger, signal, say } = modules;
  const clock = systemClock;
  await mkdir(workDir, { recursive: true });
  const dataset = await prepareDataset({ workDir, heldOut }, { logger, clock, signal, onProgress: () => {} });
  const store = pathToFileURL(path.join(workDir, 'store')).href;
  const base = demoRunConfig({
    run,
    seed,
    steps,
    workers: 1,
    store,
    manifest: dataset.trainManifest,
    tokenizer: dataset.tokenizer,
    vocabSize: dataset.vocabSize,
    cacheDir: path.join(workDir, 'cache'),
    engine: 'torch',
  });
  const config = options.change?.(base) ?? base;
  const cluster = await startLocalCluster(
    { workers: 1, store, port: 0, httpPort: 0, logFolder: path.join(workDir, 'logs') },
    { clock, logger, env: process.env, signal },
  );
  const client = new RunClient({ address: cluster.coordinatorAddress }, { clock });
  const startedMs = clock.now();
  try {
    const onStep = ({ step, loss }: { step: number; loss: number }) => {
      if (step % SAY_STEPS === 0) say(`${run}: step ${step}/${steps}, loss ${loss.toFixed(3)}`);
    };
    await trainRun({ config }, { client, signal }, { onStep });
  } catch (thrown) {
    throw CoveyError.from(thrown);
  } finally {
    client.close();
    await cluster.close();
  }
  return { config, dataset, seconds: (clock.now() - startedMs) / 1000 };
}
