import { createHash } from 'node:crypto';
import { createRequire } from 'node:module';
import grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';
import { protoPath as healthProto } from 'grpc-health-check';
import { afterEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../common/clock.ts';
import { canonicalJson } from '../../common/config/canonical-json.ts';
import { silentLogger } from '../../common/log.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { type RunningCoordinator, startCoordinator } from '../../coordinator/main.ts';
import type { Run } from '../../proto/gen/covey/v1/Run.ts';
import { RunClient } from '../../proto/run-client.ts';
import { FakeWorker, StepBarrier } from '../support/fake-worker.ts';

const LIMIT_MS = 20_000;
let storeCount = 0;
const closers: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

function newStoreUrl(): string {
  storeCount += 1;
  return `memory://coordinator-test-${process.pid}-${storeCount}`;
}

async function coordinatorOn(storeUrl: string, port = 0): Promise<RunningCoordinator> {
  const store = openObjectStore(storeUrl);
  const running = await startCoordinator(
    { natsUrl: 'nats://127.0.0.1:4222', port },
    { store, openStore: openObjectStore, logger: silentLogger },
  );
  closers.push(() => running.close());
  return running;
}

function clientOf(running: RunningCoordinator): RunClient {
  const client = new RunClient({ address: running.grpcAddress }, { clock: systemClock });
  closers.push(() => client.close());
  return client;
}

function configOf(
  storeUrl: string,
  changes: { steps?: number; expected?: number; min?: number; lanes?: number; run?: string; lease?: number } = {},
): string {
  return JSON.stringify({
    run: changes.run ?? 'run-1',
    store: storeUrl,
    model: 'tiny',
    data: { manifest: `${storeUrl}/data/manifest.json` },
    train: { steps: changes.steps ?? 100_000, globalBatch: 8, lanes: changes.lanes ?? 4 },
    workers: { min: changes.min ?? 1, expected: changes.expected ?? 2, joinWaitSeconds: 5 },
    timing: { heartbeatSeconds: 0.05, leaseSeconds: changes.lease ?? 0.5 },
  });
}

function workers(
  running: RunningCoordinator,
  names: readonly string[],
  barrier = new StepBarrier(),
  stepMs = 10,
): Promise<FakeWorker[]> {
  return Promise.all(
    names.map((name) => {
      const worker = new FakeWorker({ address: running.grpcAddress, name, stepMs }, barrier);
      closers.push(() => worker.kill());
      return worker.start();
    }),
  );
}

async function until(client: RunClient, condition: (run: Run) => boolean, what: string, run = 'run-1'): Promise<Run> {
  const deadline = Date.now() + 10_000;
  let last: Run | undefined;
  while (Date.now() < deadline) {
    last = await client.getRun(run);
    if (condition(last)) return last;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`waited in vain for ${what}: ${JSON.stringify({ ...last, configJson: '' })}`);
}

describe('the coordinator over gRPC', { timeout: LIMIT_MS }, () => {
  it('runs to the end: workers form, step, checkpoint and leave', async () => {
    const url = newStoreUrl();
    const running = await coordinatorOn(url);
    const client = clientOf(running);
    await client.submitRun(configOf(url, { steps: 20 }));
    const watched: number[] = [];
    const states: string[] = [];
    const watching = (async () => {
      for await (const message of client.watchRun('run-1')) {
        if (message.step) watched.push(message.step.step);
        if (message.run) states.push(message.run.state);
      }
    })();
    const both = await workers(running, ['a', 'b']);
    const run = await until(client, ({ state }) => state === 'RUN_STATE_FINISHED', 'the end');
    await watching;
    expect(watched).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
    expect(states.at(-1)).toBe('RUN_STATE_FINISHED');
    expect(run.step).toBe(20);
    expect(run.lastCheckpoint?.step).toBe(20);
    expect(run.generation).toBe(2);
    await expect.poll(() => both.every((worker) => worker.left)).toBe(true);
    const phases = both[0]!.seen.map(({ phase }) => phase);
    expect(phases.filter((phase) => phase !== 'PHASE_QUIESCE')).toEqual([
      'PHASE_HEAL',
      'PHASE_RUN',
      'PHASE_CHECKPOINT_AND_LEAVE',
      'PHASE_LEAVE',
    ]);
    expect(await client.listCheckpoints('run-1')).toHaveLength(1);
    await expect(
      new FakeWorker({ address: running.grpcAddress, name: 'late', run: 'run-1' }, new StepBarrier()).start(),
    ).rejects.toMatchObject({ code: 'PRECONDITION_FAILED' });
  });

  it('goes on after a worker is killed, and takes in its successor, which heals from a peer', async () => {
    const url = newStoreUrl();
    const running = await coordinatorOn(url);
    const client = clientOf(running);
    await client.submitRun(configOf(url, { expected: 3 }));
    const barrier = new StepBarrier();
    const three = await workers(running, ['a', 'b', 'c'], barrier);
    await until(client, ({ step }) => step >= 10, 'ten steps');
    const killedAt = Date.now();
    three[2]!.kill();
    const stalled = await client.getRun('run-1');
    const recovered = await until(
      client,
      ({ step, generation }) => generation >= 2 && step > stalled.step + 2,
      'recovery',
    );
    expect(Date.now() - killedAt).toBeLessThan(3_000);
    expect(recovered.members.map(({ laneBegin, laneEnd }) => [laneBegin, laneEnd])).toEqual([
      [0, 2],
      [2, 4],
    ]);
    const [successor] = await workers(running, ['d'], barrier);
    const joined = await until(
      client,
      ({ generation, state, members }) => generation >= 3 && state === 'RUN_STATE_RUNNING' && members.length === 3,
      'the successor',
    );
    const heal = successor!.seen.find(({ phase }) => phase === 'PHASE_HEAL')!;
    expect(heal.healSources.length).toBeGreaterThan(0);
    expect(heal.startStep).toBeGreaterThanOrEqual(recovered.step);
    expect(successor!.appliedStep).toBeGreaterThanOrEqual(heal.startStep);
    await until(client, ({ step }) => step > joined.step + 3, 'further steps');
    expect(three.map(({ diverged }) => diverged)).toEqual([0, 0, 0]);
  });

  it('refuses a frozen worker that comes back, which then joins anew', async () => {
    const url = newStoreUrl();
    const running = await coordinatorOn(url);
    const client = clientOf(running);
    await client.submitRun(configOf(url));
    const [a, b] = await workers(running, ['a', 'b']);
    await until(client, ({ step }) => step >= 3, 'steps');
    b!.frozen = true;
    const alone = await until(
      client,
      ({ members, state }) => members.length === 1 && state === 'RUN_STATE_RUNNING',
      'the survivor',
    );
    await expect(b!.commit(1, alone.step + 1)).rejects.toMatchObject({ code: 'STALE_GENERATION' });
    b!.frozen = false;
    await until(
      client,
      ({ members, generation }) => members.length === 2 && generation > alone.generation,
      'the return',
    );
    expect(b!.rejoined).toBe(1);
    expect(a!.rejoined).toBe(0);
    const { httpUrl } = running;
    expect(await (await fetch(`${httpUrl}/metrics`)).text()).toMatch(
      /covey_fenced_requests_total\{run="run-1",rpc="commit"\} [1-9]/,
    );
  });

  it('is restarted in mid-run without a new generation and without a lost step', async () => {
    const url = newStoreUrl();
    const first = await coordinatorOn(url);
    const client = clientOf(first);
    await client.submitRun(configOf(url, { lease: 2 }));
    const both = await workers(first, ['a', 'b']);
    const before = await until(client, ({ step }) => step >= 10, 'ten steps');
    await first.close();
    await new Promise((resolve) => setTimeout(resolve, 200));
    const restartedAt = Date.now();
    const second = await coordinatorOn(url, Number(first.grpcAddress.split(':')[1]));
    const after = await until(
      clientOf(second),
      ({ state, step, members }) => state === 'RUN_STATE_RUNNING' && step > before.step + 5 && members.length === 2,
      'going on',
    );
    expect(Date.now() - restartedAt).toBeLessThan(5_000);
    expect(after.generation).toBe(before.generation);
    expect(both.map(({ rejoined }) => rejoined)).toEqual([0, 0]);
    expect(both[0]!.seen.filter(({ phase }) => phase === 'PHASE_RUN')).toHaveLength(1);
  });

  it('stops with a checkpoint and resumes from it', async () => {
    const url = newStoreUrl();
    const running = await coordinatorOn(url);
    const client = clientOf(running);
    await client.submitRun(configOf(url));
    const both = await workers(running, ['a', 'b']);
    await until(client, ({ step }) => step >= 5, 'steps');
    expect((await client.stopRun('run-1')).state).toBe('RUN_STATE_STOPPING');
    const stopped = await until(client, ({ state }) => state === 'RUN_STATE_STOPPED', 'the stop');
    expect(stopped.lastCheckpoint?.step).toBeGreaterThanOrEqual(5);
    await expect.poll(() => both.every((worker) => worker.left)).toBe(true);
    expect((await client.resumeRun('run-1')).state).toBe('RUN_STATE_PENDING');
    const [c] = await workers(running, ['c']);
    await until(client, ({ step }) => step > stopped.lastCheckpoint!.step + 2, 'going on');
    const heal = c!.seen.find(({ phase }) => phase === 'PHASE_HEAL')!;
    expect(heal.startStep).toBe(stopped.lastCheckpoint!.step);
    expect(heal.checkpoint?.manifestKey).toBe(stopped.lastCheckpoint!.manifestKey);
    expect(heal.healSources).toEqual([]);
  });

  it('lets a worker drain, and checkpoints when the last one does', async () => {
    const url = newStoreUrl();
    const running = await coordinatorOn(url);
    const client = clientOf(running);
    await client.submitRun(configOf(url));
    const [a, b] = await workers(running, ['a', 'b']);
    const before = await until(client, ({ step }) => step >= 5, 'steps');
    a!.drain();
    await expect.poll(() => a!.left, { timeout: 5_000 }).toBe(true);
    await until(client, ({ step, members }) => step > before.step + 5 && members.length === 1, 'going on without it');
    b!.drain();
    await expect.poll(() => b!.left, { timeout: 5_000 }).toBe(true);
    const pending = await until(client, ({ state }) => state === 'RUN_STATE_PENDING', 'waiting');
    expect(pending.lastCheckpoint?.step).toBe(b!.appliedStep);
  });

  it('advances a run from exactly one of two coordinators', async () => {
    const url = newStoreUrl();
    const first = await coordinatorOn(url);
    await clientOf(first).submitRun(configOf(url, { expected: 1 }));
    const second = await coordinatorOn(url);
    // Both know the run at the same version, and each gets a worker of its own at the same time.
    const [one, two] = await Promise.all([workers(first, ['a']), workers(second, ['b'])]);
    const isRunning = (worker: FakeWorker) => worker.seen.some(({ phase }) => phase === 'PHASE_RUN');
    await expect.poll(() => isRunning(one[0]!) || isRunning(two[0]!), { timeout: 5_000 }).toBe(true);
    const states = await Promise.all(
      [first, second].map(async (running) => (await clientOf(running).getRun('run-1')).state),
    );
    expect(states.filter((state) => state === 'RUN_STATE_RUNNING')).toHaveLength(1);
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    expect([isRunning(one[0]!), isRunning(two[0]!)].filter(Boolean)).toHaveLength(1);
    const winner = isRunning(one[0]!) ? one[0]! : two[0]!;
    expect(winner.appliedStep).toBeGreaterThan(5);
  });

  it('takes up a run that a covey with fewer keys began, under the hash it was begun with', async () => {
    const url = newStoreUrl();
    const first = await coordinatorOn(url);
    await clientOf(first).submitRun(configOf(url));
    await first.close();
    // As an older version would have left it: the defaults of `loss` and `train.recompute` are not written out.
    const store = openObjectStore(url);
    const { bytes } = await store.get('runs/run-1/config.json');
    const { loss: _loss, train, ...rest } = JSON.parse(Buffer.from(bytes).toString('utf8'));
    const { recompute: _recompute, ...oldTrain } = train;
    const old = canonicalJson({ ...rest, train: oldTrain });
    await store.put('runs/run-1/config.json', Buffer.from(old));
    const head = JSON.parse(Buffer.from((await store.get('runs/run-1/HEAD')).bytes).toString('utf8'));
    const oldSha256 = createHash('sha256').update(old).digest('hex');
    await store.put('runs/run-1/HEAD', Buffer.from(JSON.stringify({ ...head, configSha256: oldSha256 })));

    const client = clientOf(await coordinatorOn(url));
    expect((await client.submitRun(configOf(url))).configSha256).toBe(oldSha256);
    await expect(client.submitRun(configOf(url, { steps: 7 }))).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
  });

  it('names every mistake of a config, and tells another config under a known name apart', async () => {
    const url = newStoreUrl();
    const client = clientOf(await coordinatorOn(url));
    const bad = JSON.stringify({ ...JSON.parse(configOf(url)), run: 'Not A Name', seed: -1 });
    await expect(client.submitRun(bad)).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
      message: expect.stringMatching(/run:.*seed:/),
    });
    const once = await client.submitRun(configOf(url));
    const again = await client.submitRun(configOf(url));
    expect(again.configSha256).toBe(once.configSha256);
    await expect(client.submitRun(configOf(url, { steps: 7 }))).rejects.toMatchObject({ code: 'ALREADY_EXISTS' });
    await expect(client.getRun('none')).rejects.toMatchObject({ code: 'NOT_FOUND', fields: { run: 'none' } });
    await expect(client.resumeRun('run-1')).resolves.toMatchObject({ state: 'RUN_STATE_PENDING' });
    expect((await client.listRuns()).map(({ run }) => run)).toEqual(['run-1']);
  });

  it('shows objective metrics and evaluations to watchers and Prometheus, and raises the collapse alarm after three low measurements', async () => {
    const url = newStoreUrl();
    const running = await coordinatorOn(url);
    const client = clientOf(running);
    await client.submitRun(configOf(url, { expected: 1 }));
    const record = (step: number) => ({
      metrics: { positive_similarity: step / 1000, 'not a name': 1 },
      health:
        step % 10 === 0 ? { 'projection.std_ratio': step < 40 ? 0.9 : 0.001, 'projection.effective_rank': 12 } : {},
    });
    const worker = new FakeWorker({ address: running.grpcAddress, name: 'a', stepMs: 5, record }, new StepBarrier());
    closers.push(() => worker.kill());
    await worker.start();
    const end = new AbortController();
    const warnings: string[] = [];
    const evaluations: number[] = [];
    const watching = (async () => {
      for await (const { event, evaluation } of client.watchRun('run-1', { signal: end.signal })) {
        if (event?.kind === 'warning') warnings.push(`${event.message} (step ${event.fields['step']})`);
        if (evaluation) evaluations.push(evaluation.metrics['val/image_to_text_R@1']!);
      }
    })().catch(() => undefined);
    await until(client, ({ step }) => step > 5, 'some steps');
    await worker.reportEvaluation(worker.generation, {
      step: 5,
      metrics: { 'val/image_to_text_R@1': 0.25 },
      seconds: 2,
    });
    // Another member's report of the same step, and one of a generation that is over.
    await worker.reportEvaluation(worker.generation, { step: 5, metrics: { 'val/image_to_text_R@1': 0.99 } });
    await expect(worker.reportEvaluation(99, { step: 6 })).rejects.toMatchObject({ code: 'STALE_GENERATION' });
    await until(client, ({ step }) => step > 70, 'the alarm');
    const run = await client.getRun('run-1');
    expect(run.lastEvaluation).toMatchObject({ step: 5, metrics: { 'val/image_to_text_R@1': 0.25 } });
    await expect.poll(() => warnings).toEqual([expect.stringMatching(/'projection' has collapsed.*\(step 60\)$/)]);
    await expect.poll(() => evaluations).toEqual([0.25]);
    const metrics = await (await fetch(`${running.httpUrl}/metrics`)).text();
    expect(metrics).toMatch(/covey_objective_metric\{run="run-1",name="positive_similarity"\} 0\.\d+/);
    expect(metrics).toContain('covey_objective_metric{run="run-1",name="other"} 1');
    expect(metrics).toContain('covey_embedding_health{run="run-1",embedding="projection",measure="std_ratio"} 0.001');
    expect(metrics).toContain('covey_embedding_collapsed{run="run-1"} 1');
    expect(metrics).toContain('covey_eval_metric{run="run-1",dataset="val",name="image_to_text_R@1"} 0.25');
    expect(metrics).toContain('covey_eval_step{run="run-1"} 5');
    end.abort();
    await watching;
  });

  it('answers health checks, reflection and HTTP', async () => {
    const url = newStoreUrl();
    const running = await coordinatorOn(url);
    const loaded = grpc.loadPackageDefinition(loadSync(healthProto, { enums: String })) as any;
    const health = new loaded.grpc.health.v1.Health(running.grpcAddress, grpc.credentials.createInsecure());
    closers.push(() => health.close());
    const check = (service: string) =>
      new Promise((resolve, reject) =>
        health.check({ service }, (error: unknown, value: { status: string }) =>
          error ? reject(error) : resolve(value.status),
        ),
      );
    expect(await check('')).toBe('SERVING');
    expect(await check('covey.v1.WorkerService')).toBe('SERVING');
    await expect(check('covey.v1.Nothing')).rejects.toMatchObject({ code: grpc.status.NOT_FOUND });
    const reflectionProto = createRequire(import.meta.url).resolve(
      '@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto',
    );
    const reflected = grpc.loadPackageDefinition(loadSync(reflectionProto)) as any;
    const reflection = new reflected.grpc.reflection.v1.ServerReflection(
      running.grpcAddress,
      grpc.credentials.createInsecure(),
    );
    closers.push(() => reflection.close());
    const call = reflection.serverReflectionInfo();
    const services = await new Promise<string[]>((resolve, reject) => {
      call.on('data', (answer: any) =>
        resolve(answer.listServicesResponse.service.map(({ name }: { name: string }) => name)),
      );
      call.on('error', reject);
      call.write({ listServices: '' });
    });
    call.end();
    expect(services).toEqual(expect.arrayContaining(['covey.v1.RunService', 'covey.v1.WorkerService']));
    for (const page of ['/healthz', '/readyz', '/metrics', '/api/runs'])
      expect((await fetch(running.httpUrl + page)).status).toBe(200);
    expect((await fetch(`${running.httpUrl}/api/runs/none`)).status).toBe(404);
  });

  it('gives up a call at its deadline when nobody answers, and at once when cancelled', async () => {
    const client = new RunClient({ address: '127.0.0.1:9' }, { clock: systemClock });
    closers.push(() => client.close());
    const startedAt = Date.now();
    await expect(client.listRuns({ timeoutMs: 400 })).rejects.toMatchObject({
      code: expect.stringMatching(/UNAVAILABLE|TIMEOUT/),
    });
    expect(Date.now() - startedAt).toBeLessThan(2_000);
    await expect(client.listRuns({ signal: AbortSignal.timeout(50) })).rejects.toMatchObject({ code: 'TIMEOUT' });
    await expect(client.listRuns({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});
