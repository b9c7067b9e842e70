import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runConfigSchema } from '../../common/config/run-config.ts';
import {
  ended,
  type FinishedRun,
  makeDataset,
  type TestDataset,
  TrainingCluster,
  testConfig,
} from '../support/training-cluster.ts';

const STEPS = 30;

describe('a run of SimCLR', () => {
  let data: TestDataset;
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'covey-e2e-simclr-'));
    data = await makeDataset(folder, 96);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  async function train(workers: number, killAtStep?: number): Promise<FinishedRun> {
    const cluster = await TrainingCluster.start();
    try {
      const base = testConfig('views', cluster.storeUrl, data, {
        workers: { expected: workers },
        train: { steps: STEPS, globalBatch: 24 },
      });
      const config = runConfigSchema.parse({
        ...base,
        objective: 'simclr',
        loss: { temperature: 0.2, projection: { batchNorm: true, width: 16 } },
      });
      await cluster.submit(config);
      for (let i = 0; i < workers; i++) cluster.startWorker('views');
      const run = await cluster.follow(
        'views',
        ({ step }) => {
          if (step === killAtStep) cluster.workers[0]!.kill('SIGKILL');
        },
        AbortSignal.timeout(100_000),
      );
      await Promise.all(cluster.workers.map((worker) => ended(worker, () => undefined)));
      return run;
    } catch (thrown) {
      throw new Error(`${String(thrown)}\n${await cluster.workerLogs()}`, { cause: thrown });
    } finally {
      await cluster.close();
    }
  }

  it('learns, and has the bits of one worker with two of which one is killed', async () => {
    const alone = await train(1);
    expect(alone.state).toBe('RUN_STATE_FINISHED');
    const mean = (losses: readonly number[]) => losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
    expect(mean(alone.losses.slice(-5))).toBeLessThan(mean(alone.losses.slice(0, 5)));
    const two = await train(2, 10);
    expect(two.losses).toEqual(alone.losses);
    expect(two.finalDigest).toBe(alone.finalDigest);
  }, 240_000);
});
