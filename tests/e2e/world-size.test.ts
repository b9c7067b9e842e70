import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { NO_FAULTS } from '../../common/testing/s3-faults.ts';
import { startS3Server } from '../../common/testing/s3-server.ts';
import { newestVerified } from '../../worker/checkpoint/checkpoint-registry.ts';
import {
  type ConsumedLine,
  copyDataset,
  ended,
  type FinishedRun,
  makeDataset,
  type TestDataset,
  TrainingCluster,
  testConfig,
} from '../support/training-cluster.ts';

const STEPS = 50;

interface Outcome extends FinishedRun {
  readonly consumed: readonly Pick<ConsumedLine, 'step' | 'lane' | 'epoch' | 'samples'>[];
}

describe('a run', () => {
  let data: TestDataset;
  let folder: string;
  let alone: Outcome;

  beforeAll(async () => {
    folder = await mkdtemp(path.join(os.tmpdir(), 'covey-e2e-data-'));
    data = await makeDataset(folder);
    alone = await train(1);
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  /** Trains with `workers` processes; `meddle` may do something to them at each committed step. */
  async function train(
    workers: number,
    meddle?: (cluster: TrainingCluster, step: number) => void | Promise<void>,
    place: { storeUrl?: string; env?: Record<string, string>; dataset?: TestDataset } = {},
  ): Promise<Outcome> {
    const cluster = await TrainingCluster.start(place);
    try {
      const config = testConfig('exact', cluster.storeUrl, place.dataset ?? data, {
        workers: { expected: workers },
        train: { steps: STEPS, precision: 'bf16' },
      });
      await cluster.submit(config);
      for (let i = 0; i < workers; i++) cluster.startWorker('exact');
      const run = await cluster.follow(
        'exact',
        meddle && ((record) => meddle(cluster, record.step)),
        AbortSignal.timeout(150_000),
      );
      await Promise.all(cluster.workers.map((worker) => ended(worker, () => undefined)));
      const consumed = (await cluster.consumed(run.records)).map(({ step, lane, epoch, samples }) => ({
        step,
        lane,
        epoch,
        samples,
      }));
      return { ...run, consumed };
    } catch (thrown) {
      throw new Error(`${String(thrown)}\n${await cluster.workerLogs()}`, { cause: thrown });
    } finally {
      await cluster.close();
    }
  }

  function expectSameHistory(other: Outcome): void {
    expect(other.state).toBe('RUN_STATE_FINISHED');
    expect(other.losses).toEqual(alone.losses);
    expect(other.finalDigest).toBe(alone.finalDigest);
    expect(other.consumed).toEqual(alone.consumed);
  }

  it('finishes with one worker, learns, and consumes every planned sample once', () => {
    expect(alone.state).toBe('RUN_STATE_FINISHED');
    expect(alone.losses).toHaveLength(STEPS);
    expect(alone.losses.at(-1)!).toBeLessThan(alone.losses[0]! - 0.5);
    expect(alone.consumed).toHaveLength(STEPS * 6);
    const firstEpoch = alone.consumed.filter((line) => line.epoch === 0).flatMap((line) => line.samples);
    expect(new Set(firstEpoch).size).toBe(firstEpoch.length);
  });

  it('has the same losses, weights and samples with 2 workers, bit for bit', async () => {
    expectSameHistory(await train(2));
  });

  it('has the same losses, weights and samples with 3 workers, bit for bit', async () => {
    expectSameHistory(await train(3));
  });

  it('has the same losses, weights and samples over S3, with 5 % of the requests failing', async () => {
    const server = await startS3Server({ buckets: ['covey'], seed: 3 });
    const store = openObjectStore('s3://covey/data', { env: server.env });
    try {
      const dataset = await copyDataset(data, store);
      server.faults = { ...NO_FAULTS, unavailable: 0.05, truncated: 0.02 };
      expectSameHistory(await train(1, undefined, { storeUrl: 's3://covey/runs', env: server.env, dataset }));
      expect(await newestVerified(openObjectStore('s3://covey/runs', { env: server.env }), 'exact')).toMatchObject({
        step: STEPS,
        ok: true,
      });
    } finally {
      await store.close();
      await server.stop();
    }
  });

  // Any real S3 server: COVEY_TEST_S3_ENDPOINT, the bucket in COVEY_TEST_S3_BUCKET, keys in COVEY_S3_*.
  const external = process.env['COVEY_TEST_S3_ENDPOINT'];
  it.skipIf(!external)('has the same losses, weights and samples over a real S3 server', async () => {
    const env = { ...(process.env as Record<string, string>), COVEY_S3_ENDPOINT: external! };
    const root = `s3://${process.env['COVEY_TEST_S3_BUCKET'] ?? 'covey'}/e2e-${Date.now()}`;
    const store = openObjectStore(`${root}/data`, { env });
    try {
      const dataset = await copyDataset(data, store);
      expectSameHistory(await train(2, undefined, { storeUrl: `${root}/runs`, env, dataset }));
    } finally {
      await store.close();
    }
  });

  it('has the same losses, weights and samples when one of 2 workers is killed at step 25 and replaced', async () => {
    let killed = false;
    const outcome = await train(2, (cluster, step) => {
      if (step < 25 || killed) return;
      killed = true;
      cluster.workers[0]!.kill('SIGKILL');
      cluster.startWorker('exact');
    });
    expect(killed).toBe(true);
    expectSameHistory(outcome);
    expect(outcome.records.some((record) => record.generation > 1)).toBe(true);
  });
});
