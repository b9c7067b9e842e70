import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runConfigSchema } from '../../common/config/run-config.ts';
import { resolveModelConfig } from '../../models/model-config.ts';
import {
  inCluster,
  makeDataset,
  type TestDataset,
  type TrainingCluster,
  testConfig,
} from '../support/training-cluster.ts';

const STEPS = 20;

describe('a run of MAE', () => {
  let data: TestDataset;
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'covey-e2e-mae-'));
    data = await makeDataset(folder, 96);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** @param onStep sees the cluster after each committed step */
  function train(workers: number, onStep?: (step: number, cluster: TrainingCluster) => void | Promise<void>) {
    return inCluster((cluster) => {
      const base = testConfig('mae', cluster.storeUrl, data, {
        workers: { expected: workers },
        train: { steps: STEPS, globalBatch: 24 },
        checkpoint: { everySteps: 4 },
      });
      const model = resolveModelConfig(base.model);
      const layout = { lnPre: false, patchBias: true, positions: 'sincos', layerNormEps: 1e-6, init: 'mae' };
      const loss = { mae: { decoder: { width: 32, layers: 1, headWidth: 16 } } };
      const vision = { ...model.vision, ...layout };
      const config = runConfigSchema.parse({ ...base, objective: 'mae', loss, model: { ...model, vision } });
      return cluster.train(config, workers, async ({ step }) => onStep?.(step, cluster));
    });
  }

  it('hides the same patches, and has the bits of an undisturbed one, through a lost worker and a resume from the store', async () => {
    const alone = await train(1);
    expect(alone.state).toBe('RUN_STATE_FINISHED');
    const mean = (losses: readonly number[]) => losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
    expect(mean(alone.losses.slice(-4))).toBeLessThan(mean(alone.losses.slice(0, 4)));
    let resumed = false;
    const disturbed = await train(2, async (step, cluster) => {
      if (step === 5) cluster.workers[0]!.kill('SIGKILL');
      if (step < 11 || resumed) return;
      resumed = true;
      await cluster.killAll();
      cluster.startWorker('mae');
    });
    expect(disturbed.state).toBe('RUN_STATE_FINISHED');
    expect(resumed).toBe(true);
    expect(disturbed.losses).toEqual(alone.losses);
    expect(disturbed.finalDigest).toBe(alone.finalDigest);
  }, 300_000);
});
