import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openBackbone } from '../../cli/transfer/backbone-options.ts';
import { type RunConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { commandContext } from '../support/command-context.ts';
import { makeDataset, SHAPES, type TestDataset, TrainingCluster, testConfig } from '../support/training-cluster.ts';

const PRETRAINED = 'pretrained';
const STEPS = 6;

describe('a run of classes that begins with the image tower of a CLIP run', () => {
  let folder: string;
  let data: TestDataset;
  let cluster: TrainingCluster;

  beforeAll(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'covey-e2e-fine-tuning-'));
    data = await makeDataset(folder, 96, { labels: true });
    cluster = await TrainingCluster.start();
    const train = { steps: 4, globalBatch: 24 };
    await finished(testConfig(PRETRAINED, cluster.storeUrl, data, { train }), 1);
  });
  afterAll(async () => {
    await cluster.close();
    await rm(folder, { recursive: true, force: true });
  });

  function tuning(run: string, workers: number, train: object = {}): RunConfig {
    const base = testConfig(run, cluster.storeUrl, data, {
      workers: { min: workers, expected: workers },
      train: { steps: STEPS, globalBatch: 24, initFrom: `${cluster.storeUrl}/runs/${PRETRAINED}`, ...train },
    });
    return runConfigSchema.parse({ ...base, objective: 'supervised', loss: { classes: SHAPES } });
  }

  async function finished(config: RunConfig, workers: number, onStep?: (step: number) => void | Promise<void>) {
    try {
      const run = await cluster.train(config, workers, (record) => onStep?.(record.step));
      expect(run.state).toBe('RUN_STATE_FINISHED');
      return run;
    } catch (thrown) {
      throw new Error(`${String(thrown)}\n${await cluster.workerLogs()}`, { cause: thrown });
    }
  }

  const digestOf = async (run: string) => {
    const options = { store: cluster.storeUrl, weights: 'last' } as const;
    return (await openBackbone(commandContext(), run, options)).backbone.digest;
  };

  it('learns the same on one worker and on two, of which one joins when what it began with is gone', async () => {
    const [alone, locked] = await Promise.all([
      finished(tuning('alone', 1), 1),
      finished(tuning('locked', 1, { lock: { image: true } }), 1),
    ]);
    const before = await digestOf(PRETRAINED);
    // The whole image tower was taken, and only the new head learnt; both runs began alike.
    expect(await digestOf('locked')).toBe(before);
    expect(locked.losses[0]).toBe(alone.losses[0]);
    expect(locked.losses.at(-1)).not.toBe(alone.losses.at(-1));
    let replaced = false;
    const two = await finished(tuning('two', 2), 2, async (step) => {
      if (replaced || step < 2) return;
      replaced = true;
      await rm(path.join(fileURLToPath(cluster.storeUrl), 'runs', PRETRAINED), { recursive: true });
      cluster.workers.at(-1)!.kill('SIGTERM');
      cluster.startWorker('two');
    });
    expect(replaced).toBe(true);
    expect(two.losses).toEqual(alone.losses);
    expect(two.finalDigest).toBe(alone.finalDigest);
    expect(new Set(two.records.map(({ generation }) => generation)).size).toBeGreaterThan(1);
    const tuned = await digestOf('two');
    expect(tuned).toBe(await digestOf('alone'));
    expect(tuned).not.toBe(before);
  });
});
