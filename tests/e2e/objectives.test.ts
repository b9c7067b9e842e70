import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runConfigSchema } from '../../common/config/run-config.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import type { StepRecord } from '../../proto/gen/covey/v1/StepRecord.ts';
import { readManifest } from '../../worker/checkpoint/read-checkpoint.ts';
import { BUFFERS, EMA } from '../../worker/train/state-layout.ts';
import {
  inCluster,
  makeDataset,
  SHAPES,
  type TestDataset,
  type TrainingCluster,
  testConfig,
} from '../support/training-cluster.ts';

const RUN = 'objective';

let data: TestDataset;
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'covey-e2e-objectives-'));
  data = await makeDataset(folder, 96, { labels: true });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

interface Recipe {
  readonly objective: string;
  readonly loss: object;
  readonly model?: object;
  readonly train?: object;
}

/**
 * Trains to the end in real processes. `blobs` are the hashes of its last checkpoint: weights, moments, averages, what no gradient changes.
 *
 * @param onStep sees the cluster after each committed step
 */
function train(
  { objective, loss, model, train }: Recipe,
  { steps, workers }: { readonly steps: number; readonly workers: number },
  onStep?: (record: StepRecord, cluster: TrainingCluster) => void | Promise<void>,
) {
  return inCluster(async (cluster) => {
    const base = testConfig(RUN, cluster.storeUrl, data, {
      workers: { expected: workers },
      train: { steps, globalBatch: 24, ...train },
      checkpoint: { everySteps: 4 },
    });
    const config = runConfigSchema.parse({ ...base, objective, loss, model: { ...(base.model as object), ...model } });
    const run = await cluster.train(config, workers, async (record) => onStep?.(record, cluster));
    return { run, blobs: await lastBlobs(cluster, steps) };
  });
}

async function lastCheckpointOf(cluster: TrainingCluster) {
  const client = cluster.client();
  try {
    return (await client.getRun(RUN)).lastCheckpoint;
  } finally {
    client.close();
  }
}

async function lastBlobs(cluster: TrainingCluster, steps: number): Promise<Readonly<Record<string, string>>> {
  const store = openObjectStore(cluster.storeUrl);
  try {
    const last = await lastCheckpointOf(cluster);
    expect(last?.step).toBe(steps);
    return (await readManifest(store, last!.manifestKey)).blobs;
  } finally {
    await store.close();
  }
}

describe('a run of SimCLR', () => {
  const recipe: Recipe = {
    objective: 'simclr',
    loss: { temperature: 0.2, projection: { batchNorm: true, width: 16 } },
  };

  it('learns, and has the bits of one worker with two of which one is killed', async () => {
    const alone = await train(recipe, { steps: 30, workers: 1 });
    expect(alone.run.state).toBe('RUN_STATE_FINISHED');
    const mean = (losses: readonly number[]) => losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
    expect(mean(alone.run.losses.slice(-5))).toBeLessThan(mean(alone.run.losses.slice(0, 5)));
    const two = await train(recipe, { steps: 30, workers: 2 }, ({ step }, cluster) => {
      if (step === 10) cluster.workers[0]!.kill('SIGKILL');
    });
    expect(two.run.losses).toEqual(alone.run.losses);
    expect(two.run.finalDigest).toBe(alone.run.finalDigest);
    expect(two.blobs).toEqual(alone.blobs);
  });
});

const RESNET = { kind: 'resnet', imageSize: 32, depth: 18, stem: 'cifar', width: 4 };

describe.each<{ readonly title: string; readonly recipe: Recipe; readonly kept: readonly string[] }>([
  { title: 'rotation', recipe: { objective: 'rotation', loss: {} }, kept: [] },
  { title: 'cloze', recipe: { objective: 'cloze', loss: {} }, kept: [] },
  {
    title: 'CLIP and SimCLR together, with an average of the weights',
    recipe: {
      objective: 'joint',
      loss: { temperature: 0.2, joint: [{ objective: 'clip' }, { objective: 'simclr', weight: 0.5 }] },
      train: { ema: { decay: 0.9, everySteps: 2 } },
    },
    kept: [EMA],
  },
  {
    title: 'classes on a ResNet-18, with its running statistics',
    recipe: { objective: 'supervised', loss: { classes: SHAPES }, model: { vision: RESNET } },
    kept: [BUFFERS],
  },
])('a run of $title', ({ recipe, kept }) => {
  const steps = 60;

  it('has the bits of an undisturbed one through a lost worker and a resume from the store', async () => {
    let kills = 0;
    let lost = 0;
    const [alone, disturbed] = await Promise.all([
      train(recipe, { steps, workers: 1 }),
      train(recipe, { steps, workers: 2 }, async ({ step, generation }, cluster) => {
        if (kills === 0 && step >= 4) {
          kills++;
          lost = generation;
          cluster.workers[0]!.kill('SIGKILL');
        } else if (kills === 1 && generation > lost && step >= 12) {
          // Without a checkpoint it would begin again, and every record be of one generation.
          if (!(await lastCheckpointOf(cluster))) return;
          kills++;
          await cluster.killAll();
          cluster.startWorker(RUN);
        }
      }),
    ]);
    expect(alone.run.state).toBe('RUN_STATE_FINISHED');
    expect(alone.run.losses).toHaveLength(steps);
    expect(alone.run.losses.every(Number.isFinite)).toBe(true);
    expect(disturbed.run.state).toBe('RUN_STATE_FINISHED');
    // The worker that was lost and the new one each began a generation.
    expect(kills).toBe(2);
    expect(new Set(disturbed.run.records.map(({ generation }) => generation)).size).toBeGreaterThanOrEqual(3);
    expect(disturbed.run.losses).toEqual(alone.run.losses);
    expect(disturbed.run.finalDigest).toBe(alone.run.finalDigest);
    expect(Object.keys(alone.blobs)).toEqual(expect.arrayContaining([...kept]));
    expect(disturbed.blobs).toEqual(alone.blobs);
  });
});
