import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runConfigSchema } from '../../common/config/run-config.ts';
import {
  inCluster,
  makeDataset,
  type TestDataset,
  type TrainingCluster,
  testConfig,
} from '../support/training-cluster.ts';

const STEPS = 30;
const MOMENTUM = { momentum: 0.9, width: 16 };

describe.each([
  { objective: 'moco-v2', moco: { ...MOMENTUM, queue: 72 } },
  { objective: 'moco-v3', moco: { ...MOMENTUM, hidden: 32 } },
])('a run of $objective', ({ objective, moco }) => {
  let data: TestDataset;
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'covey-e2e-moco-'));
    data = await makeDataset(folder, 96);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** @param onStep sees the cluster after each committed step */
  function train(workers: number, onStep?: (step: number, cluster: TrainingCluster) => void | Promise<void>) {
    return inCluster((cluster) => {
      const base = testConfig('moco', cluster.storeUrl, data, {
        workers: { expected: workers },
        train: { steps: STEPS, globalBatch: 24 },
        checkpoint: { everySteps: 4 },
      });
      const config = runConfigSchema.parse({ ...base, objective, loss: { moco } });
      return cluster.train(config, workers, async ({ step }) => onStep?.(step, cluster));
    });
  }

  it('has the bits of an undisturbed one, key encoder and queue included, through a lost worker and a resume from the store', async () => {
    const alone = await train(1);
    expect(alone.state).toBe('RUN_STATE_FINISHED');
    expect(alone.losses.every(Number.isFinite)).toBe(true);
    let resumed = false;
    const disturbed = await train(2, async (step, cluster) => {
      if (step === 6) cluster.workers[0]!.kill('SIGKILL');
      if (step < 16 || resumed) return;
      resumed = true;
      await cluster.killAll();
      cluster.startWorker('moco');
    });
    expect(disturbed.state).toBe('RUN_STATE_FINISHED');
    const last = disturbed.records.at(-1)!;
    expect(last.step).toBe(STEPS);
    expect(resumed).toBe(true);
    expect(disturbed.losses).toEqual(alone.losses);
    expect(disturbed.finalDigest).toBe(alone.finalDigest);
  }, 300_000);
});
