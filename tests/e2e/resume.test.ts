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

  it(`resumes with no manual step from each of ${CHECKPOINT_KILLS} kills during checkpoint writes`, async () => {
    const cluster = await TrainingCluster.start();
    try {
      await cluster.submit(config(cluster));
      const checkpoints = path.join(fileURLToPath(cluster.storeUrl), 'runs/phoenix/ckpt');
      await mkdir(checkpoints, { recursive: true });
      const random = new RandomStream('checkpoint-kills', Date.now());
      for (let kill = 0; kill < CHECKPOINT_KILLS; kill++) {
        const worker = cluster.startWorker('phoenix');
        // Each blob and manifest is created, filled and renamed: an event count lands the kill anywhere in between.
        let eventsLeft = 1 + random.integer(30);
        const watcher = watch(checkpoints, { recursive: true });
        const killed = new Promise<void>((resolve) => {
          watcher.on('change', () => {
            if (eventsLeft-- > 0) return;
            worker.kill('SIGKILL');
            resolve();
          });
        });
        await Promise.race([killed, ended(worker, () => undefined)]);
        watcher.close();
        await ended(worker, () => worker.kill('SIGKILL'));
        if (worker.exitCode === 0) break;
      }
      cluster.startWorker('phoenix');
      const after = await cluster.follow('phoenix', undefined, AbortSignal.timeout(90_000));
      expect(after.state).toBe('RUN_STATE_FINISHED');
      expect(after.finalDigest).toBe(golden.finalDigest);
    } finally {
      await cluster.close();
    }
  });
});
