import type { ChildProcess } from 'node:child_process';
import { watch } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RandomStream } from '../../common/random.ts';
import {
  ended,
  type FinishedRun,
  inCluster,
  makeDataset,
  type TestDataset,
  TrainingCluster,
  testConfig,
} from '../support/training-cluster.ts';

const STEPS = 60;
const CHECKPOINT_KILLS = 20;

describe('a run that loses everything', () => {
  let data: TestDataset;
  let folder: string;
  let golden: FinishedRun;

  beforeAll(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'covey-e2e-data-'));
    data = await makeDataset(folder);
    const cluster = await TrainingCluster.start();
    try {
      await cluster.submit(config(cluster));
      cluster.startWorker('phoenix');
      golden = await cluster.follow('phoenix', undefined, AbortSignal.timeout(100_000));
    } finally {
      await cluster.close();
    }
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  function config(cluster: TrainingCluster) {
    return testConfig('phoenix', cluster.storeUrl, data, {
      train: { steps: STEPS, precision: 'bf16' },
      checkpoint: { everySteps: 4, keepLast: 3 },
    });
  }

  it('resumes from the store alone, and its loss curve is the uninterrupted one, bit for bit', async () => {
    const cluster = await TrainingCluster.start();
    try {
      await cluster.submit(config(cluster));
      cluster.startWorker('phoenix');
      const killAt = 10 + new RandomStream('kill-all', Date.now()).integer(30);
      const stop = new AbortController();
      const before = await cluster
        .follow(
          'phoenix',
          async ({ step }) => {
            if (step < killAt || stop.signal.aborted) return;
            await cluster.killAll();
            stop.abort();
          },
          AbortSignal.any([stop.signal, AbortSignal.timeout(60_000)]),
        )
        .catch(() => undefined);
      expect(before).toBeUndefined();
      await cluster.restartCoordinator();
      cluster.startWorker('phoenix');
      const after = await cluster.follow('phoenix', undefined, AbortSignal.timeout(60_000));
      expect(after.state, `killed at ${killAt}`).toBe('RUN_STATE_FINISHED');
      expect(after.finalDigest).toBe(golden.finalDigest);
      const resumedAt = after.records[0]!.step;
      expect(resumedAt).toBeGreaterThan(1);
      expect(after.losses).toEqual(golden.losses.slice(resumedAt - 1));
      expect(await cluster.consumed(after.records)).toHaveLength((STEPS - resumedAt + 1) * 6);
    } finally {
      await cluster.close();
    }
  });

  /** Kills the worker once `after` more events were seen among the checkpoints; resolves when it is gone, killed or by itself. */
  async function killedAmidCheckpoint(cluster: TrainingCluster, worker: ChildProcess, after: number): Promise<void> {
    const checkpoints = path.join(fileURLToPath(cluster.storeUrl), 'runs/phoenix/ckpt');
    await mkdir(checkpoints, { recursive: true });
    // Each blob and manifest is created, filled and renamed: an event count lands the kill anywhere in between.
    let eventsLeft = after;
    const watcher = watch(checkpoints, { recursive: true });
    watcher.on('change', () => {
      if (eventsLeft-- <= 0) worker.kill('SIGKILL');
    });
    await ended(worker, () => undefined);
    watcher.close();
  }

  it(`resumes with no manual step from each of ${CHECKPOINT_KILLS} kills during checkpoint writes`, () =>
    inCluster(async (cluster) => {
      await cluster.submit(config(cluster));
      const random = new RandomStream('checkpoint-kills', Date.now());
      for (let kill = 0; kill < CHECKPOINT_KILLS; kill++) {
        const worker = cluster.startWorker('phoenix');
        await killedAmidCheckpoint(cluster, worker, 1 + random.integer(30));
        if (worker.exitCode === 0) break;
      }
      cluster.startWorker('phoenix');
      const after = await cluster.follow('phoenix', undefined, AbortSignal.timeout(90_000));
      expect(after.state).toBe('RUN_STATE_FINISHED');
      expect(after.finalDigest).toBe(golden.finalDigest);
    }));

  it('takes a replacement that comes while the lease of the one that died over the last checkpoint still runs', () =>
    inCluster(async (cluster) => {
      const short = config(cluster);
      await cluster.submit({ ...short, checkpoint: { ...short.checkpoint, everySteps: STEPS } });
      const worker = cluster.startWorker('phoenix');
      await killedAmidCheckpoint(cluster, worker, 0);
      expect(worker.signalCode).toBe('SIGKILL');
      const replacement = cluster.startWorker('phoenix');
      const after = await cluster.follow('phoenix', undefined, AbortSignal.timeout(90_000));
      expect(after.state).toBe('RUN_STATE_FINISHED');
      expect(after.finalDigest).toBe(golden.finalDigest);
      await ended(replacement, () => undefined);
      expect(replacement.exitCode).toBe(0);
    }));
});
