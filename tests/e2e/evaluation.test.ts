import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type FinishedRun, inCluster, makeDataset, type TestDataset, testConfig } from '../support/training-cluster.ts';

const STEPS = 24;
const EVERY = 8;

describe('a run that evaluates held-out data while it trains', () => {
  let data: TestDataset;
  let folder: string;

  beforeAll(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'covey-e2e-eval-'));
    data = await makeDataset(folder, 100);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  function train(workers: number, options: { evaluated: boolean; killAtStep?: number }): Promise<FinishedRun> {
    const evaluation = {
      everySteps: EVERY,
      datasets: [{ manifest: data.manifestUrl, tasks: ['zeroshot', 'retrieval', 'loss', 'health'] }],
    };
    return inCluster((cluster) => {
      const config = testConfig('evals', cluster.storeUrl, data, {
        workers: { expected: workers },
        train: { steps: STEPS, globalBatch: 24 },
        ...(options.evaluated ? { eval: evaluation } : {}),
      });
      return cluster.train(config, workers, ({ step }) => {
        if (step === options.killAtStep) cluster.workers[0]!.kill('SIGKILL');
      });
    });
  }

  const figuresOf = ({ evaluations }: FinishedRun) =>
    [...evaluations.values()].map(({ step, metrics, similarities, weightsDigest }) => ({
      step,
      metrics,
      similarities,
      weightsDigest,
    }));

  it('has the same figures with one worker and with two of which one is killed, and trains as without evaluation', async () => {
    const alone = await train(1, { evaluated: true });
    expect(alone.state).toBe('RUN_STATE_FINISHED');
    expect([...alone.evaluations.keys()]).toEqual([8, 16, 24]);
    const last = alone.evaluations.get(STEPS)!;
    expect(last.weightsDigest).toBe(alone.finalDigest);
    expect(last.metrics).toMatchObject({ 'val/num_samples': 100 });
    expect(last.metrics['val/clip_val_loss']).toBeLessThan(alone.evaluations.get(8)!.metrics['val/clip_val_loss']!);
    for (const name of ['zeroshot-val-top1', 'zeroshot-val-top5', 'image_to_text_R@5', 'text_to_image_R@10']) {
      expect(last.metrics[`val/${name}`], name).toBeGreaterThan(0);
      expect(last.metrics[`val/${name}`], name).toBeLessThanOrEqual(1);
    }
    expect(last.similarities.map(({ name }) => name)).toEqual(['val/image.positive', 'val/image.negative']);

    const without = await train(1, { evaluated: false });
    expect(without.losses).toEqual(alone.losses);
    expect(without.finalDigest).toBe(alone.finalDigest);
    expect(without.evaluations.size).toBe(0);

    // The kill falls into the evaluation that follows the step, or next to it: it is made again.
    const two = await train(2, { evaluated: true, killAtStep: EVERY });
    expect(two.losses).toEqual(alone.losses);
    expect(figuresOf(two)).toEqual(figuresOf(alone));
  }, 300_000);
});
