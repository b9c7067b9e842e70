import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runConfigSchema } from '../../common/config/run-config.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { openTrainingData } from '../../worker/data/training-data.ts';
import {
  type FinishedRun,
  makeDataset,
  type TestDataset,
  TrainingCluster,
  testConfig,
} from '../support/training-cluster.ts';

const STEPS = 60;
const KILL_AT = 11;

describe('a run over a mixture of two datasets', () => {
  const folders: string[] = [];
  const data: TestDataset[] = [];

  beforeAll(async () => {
    for (const count of [150, 60]) {
      const folder = await mkdtemp(path.join(os.tmpdir(), 'covey-e2e-mixture-'));
      folders.push(folder);
      data.push(await makeDataset(folder, count));
    }
  });
  afterAll(() => Promise.all(folders.map((folder) => rm(folder, { recursive: true, force: true }))));

  function config(cluster: TrainingCluster, workers: number) {
    const base = testConfig('mixed', cluster.storeUrl, data[0]!, {
      workers: { expected: workers },
      train: { steps: STEPS, globalBatch: 24, lanes: 6 },
      checkpoint: { everySteps: 4 },
    });
    const mixture = data.map(({ manifestUrl }, i) => ({ manifest: manifestUrl, weight: 3 - 2 * i, name: `part-${i}` }));
    return runConfigSchema.parse({ ...base, data: { ...base.data, manifest: undefined, mixture } });
  }

  /** The run's curve, and the samples of its committed steps as far as its workers' logs reach. */
  async function train(workers: number, killAtStep?: number): Promise<FinishedRun & { samples: string[][] }> {
    const cluster = await TrainingCluster.start();
    try {
      await cluster.submit(config(cluster, workers));
      for (let i = 0; i < workers; i++) cluster.startWorker('mixed');
      if (killAtStep !== undefined) {
        const stop = new AbortController();
        const client = cluster.client();
        const killed = cluster.follow(
          'mixed',
          async ({ step }) => {
            if (step < killAtStep || stop.signal.aborted) return;
            // A checkpoint is stored beside the steps, and on a busy machine well after them.
            if (!(await client.getRun('mixed')).lastCheckpoint) return;
            await cluster.killAll();
            stop.abort();
          },
          AbortSignal.any([stop.signal, AbortSignal.timeout(60_000)]),
        );
        await killed.catch(() => undefined);
        client.close();
        expect(stop.signal.aborted, 'everything was killed in mid-run').toBe(true);
        await cluster.restartCoordinator();
        cluster.startWorker('mixed');
      }
      const run = await cluster.follow('mixed', undefined, AbortSignal.timeout(90_000));
      const consumed = await cluster.consumed(run.records);
      return { ...run, samples: consumed.map(({ samples }) => [...samples]) };
    } catch (thrown) {
      throw new Error(`${String(thrown)}\n${await cluster.workerLogs()}`, { cause: thrown });
    } finally {
      await cluster.close();
    }
  }

  it('consumes what the plan says, in its shares, with the same bits by one worker, by two, and after a kill of all', async () => {
    const alone = await train(1);
    expect(alone.state, alone.reason).toBe('RUN_STATE_FINISHED');
    const ids = alone.samples.flat();
    expect(ids).toHaveLength(STEPS * 24);
    expect(ids.filter((id) => id.startsWith('part-1:'))).toHaveLength(STEPS * 6);
    const { samples, plan } = await openTrainingData(
      config({ storeUrl: 'file:///unused' } as TrainingCluster, 1),
      async (url) => openObjectStore(url),
    );
    const planned = [];
    for (let step = 0; step < STEPS; step++)
      for (let lane = 0; lane < 6; lane++)
        for (const index of plan.laneSamples(step, lane).sampleIndices)
          planned.push((await samples.locate(index)).sampleId);
    expect(ids).toEqual(planned);

    const two = await train(2);
    expect(two.losses).toEqual(alone.losses);
    expect(two.samples).toEqual(alone.samples);
    const resumed = await train(1, KILL_AT);
    expect(resumed.state, resumed.reason).toBe('RUN_STATE_FINISHED');
    const resumedAt = resumed.records[0]!.step;
    expect(resumedAt).toBeGreaterThan(1);
    expect(resumed.losses).toEqual(alone.losses.slice(resumedAt - 1));
    expect(resumed.finalDigest).toBe(alone.finalDigest);
    expect(two.finalDigest).toBe(alone.finalDigest);
  }, 280_000);
});
