import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import sharp from 'sharp';
import { builtModule } from '../../common/built-module.ts';
import { systemClock } from '../../common/clock.ts';
import { type RunConfig, runConfigSchema } from '../../common/config/run-config.ts';
import { silentLogger } from '../../common/log.ts';
import { type NatsServerHandle, startNatsServer } from '../../common/nats-server.ts';
import { FileStore } from '../../common/objectstore/file-store.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { openObjectStore } from '../../common/objectstore/open.ts';
import { RandomStream } from '../../common/random.ts';
import { startCoordinator } from '../../coordinator/main.ts';
import { trainBpe } from '../../models/tokenizer/bpe-trainer.ts';
import type { Evaluation } from '../../proto/gen/covey/v1/Evaluation.ts';
import type { StepRecord } from '../../proto/gen/covey/v1/StepRecord.ts';
import { RunClient } from '../../proto/run-client.ts';
import { pack } from '../../worker/data/pack/pack.ts';

/** What the pictures show, and their labels. */
const TRAIN_LIMIT_MS = 150_000;

export const SHAPES = ['circle', 'square', 'triangle', 'cross'];
const COLOURS = ['red', 'green', 'blue', 'orange', 'purple', 'black', 'brown', 'pink'];

export interface TestDataset {
  readonly manifestUrl: string;
  readonly tokenizerUrl: string;
  readonly vocabSize: number;
}

/**
 * Small drawn pictures with captions that fit them, packed as a user would. With `labels` each lies in a folder called after its shape,
 * which is its label.
 */
export async function makeDataset(
  folder: string,
  count = 192,
  { labels = false }: { readonly labels?: boolean } = {},
): Promise<TestDataset> {
  const pictures = path.join(folder, 'pictures');
  for (const shape of labels ? SHAPES : ['']) await mkdir(path.join(pictures, shape), { recursive: true });
  const { writeFile } = await import('node:fs/promises');
  const random = new RandomStream('test-dataset');
  const captions: string[] = [];
  for (let i = 0; i < count; i++) {
    const shape = SHAPES[random.integer(SHAPES.length)]!;
    const colour = COLOURS[random.integer(COLOURS.length)]!;
    const name = path.join(labels ? shape : '', String(i).padStart(4, '0'));
    const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="32" height="32"><rect width="32" height="32" fill="white"/>${drawn(shape, colour, random)}</svg>`;
    await writeFile(path.join(pictures, `${name}.png`), await sharp(Buffer.from(svg)).png().toBuffer());
    captions.push(`a ${colour} ${shape}`);
    await writeFile(path.join(pictures, `${name}.txt`), captions.at(-1)!);
  }
  const data = path.join(folder, 'data');
  await mkdir(data, { recursive: true });
  const store = new FileStore(
    { url: pathToFileURL(data).href },
    { clock: systemClock, random: new RandomStream('test') },
  );
  await pack(
    {
      name: 'shapes',
      source: { kind: 'folder', path: pictures, labels: labels ? 'folder' : 'none' },
      destination: store,
      samplesPerShardMax: 50,
    },
    { logger: silentLogger },
  );
  const tokenizer = trainBpe(captions, { vocabSize: 600 });
  await store.put('tokenizer.json', Buffer.from(tokenizer));
  const vocabSize = Object.keys(JSON.parse(tokenizer).model.vocab).length;
  const url = pathToFileURL(data).href;
  return { manifestUrl: `${url}/manifest.json`, tokenizerUrl: `${url}/tokenizer.json`, vocabSize };
}

/** The same dataset in another store. */
export async function copyDataset(dataset: TestDataset, to: ObjectStore): Promise<TestDataset> {
  const from = openObjectStore(dataset.manifestUrl.slice(0, dataset.manifestUrl.lastIndexOf('/')));
  for await (const { key } of from.list('')) await to.put(key, (await from.get(key)).bytes);
  await from.close();
  return { ...dataset, manifestUrl: `${to.url}/manifest.json`, tokenizerUrl: `${to.url}/tokenizer.json` };
}

function drawn(shape: string, colour: string, random: RandomStream): string {
  const [x, y, r] = [10 + random.integer(12), 10 + random.integer(12), 5 + random.integer(5)];
  if (shape === 'circle') return `<circle cx="${x}" cy="${y}" r="${r}" fill="${colour}"/>`;
  if (shape === 'square')
    return `<rect x="${x - r}" y="${y - r}" width="${2 * r}" height="${2 * r}" fill="${colour}"/>`;
  if (shape === 'triangle') return `<path d="M${x} ${y - r}L${x + r} ${y + r}L${x - r} ${y + r}Z" fill="${colour}"/>`;
  return `<path d="M${x - r} ${y}H${x + r}M${x} ${y - r}V${y + r}" stroke="${colour}" stroke-width="4"/>`;
}

/** A config of a run small enough for a test; `train` and others may be overridden. */
export function testConfig(
  run: string,
  storeUrl: string,
  dataset: TestDataset,
  change: Partial<Record<string, object>> = {},
): RunConfig {
  return runConfigSchema.parse({
    run,
    seed: 11,
    store: storeUrl,
    model: {
      embedDim: 32,
      vision: { imageSize: 32, patchSize: 8, width: 64, layers: 2, headWidth: 32 },
      text: { contextLength: 12, vocabSize: dataset.vocabSize, width: 64, heads: 2, layers: 2 },
    },
    data: { manifest: dataset.manifestUrl, tokenizer: dataset.tokenizerUrl, augment: { scale: [0.8, 1], flip: 0.5 } },
    train: {
      steps: 50,
      globalBatch: 48,
      lanes: 6,
      optimizer: { lr: 1e-3, warmupSteps: 5, weightDecay: 0.1 },
      ...change['train'],
    },
    checkpoint: { everySteps: 1000, ...change['checkpoint'] },
    eval: change['eval'],
    workers: { min: 1, expected: 1, joinWaitSeconds: 20, ...change['workers'] },
    timing: { collectiveTimeoutSeconds: 20, drainSeconds: 10, ...change['timing'] },
  });
}

export interface ConsumedLine {
  readonly step: number;
  readonly generation: number;
  readonly lane: number;
  readonly epoch: number;
  readonly samples: readonly string[];
}

export interface FinishedRun {
  readonly losses: readonly number[];
  readonly records: readonly StepRecord[];
  readonly state: string;
  readonly reason: string;
  readonly finalDigest: string;
  /** By step, as they were reported last. */
  readonly evaluations: ReadonlyMap<number, Evaluation>;
}

/** NATS, coordinator (in this process) and worker processes that can be killed. Everything lies in one temporary folder. */
export class TrainingCluster {
  readonly folder: string;
  readonly storeUrl: string;
  readonly #env: Readonly<Record<string, string>>;
  readonly #nats: NatsServerHandle;
  #coordinator: Awaited<ReturnType<typeof startCoordinator>>;
  readonly workers: ChildProcess[] = [];
  readonly #sampleLogs: string[] = [];

  private constructor(
    folder: string,
    nats: NatsServerHandle,
    coordinator: Awaited<ReturnType<typeof startCoordinator>>,
    storeUrl: string,
    env: Readonly<Record<string, string>>,
  ) {
    this.#env = env;
    this.folder = folder;
    this.#nats = nats;
    this.#coordinator = coordinator;
    this.storeUrl = storeUrl;
  }

  /** `env` reaches the coordinator's store and the workers: where an S3 store is, and its credentials. */
  static async start(
    options: { readonly storeUrl?: string; readonly env?: Readonly<Record<string, string>> } = {},
  ): Promise<TrainingCluster> {
    const folder = await mkdtemp(path.join(os.tmpdir(), 'covey-e2e-'));
    const env = options.env ?? {};
    const storeUrl = options.storeUrl ?? pathToFileURL(path.join(folder, 'store')).href;
    await mkdir(path.join(folder, 'store'), { recursive: true });
    const nats = await startNatsServer({}, { logger: silentLogger });
    const coordinator = await startCoordinator(coordinatorOptions(nats.url), coordinatorModules(storeUrl, env));
    return new TrainingCluster(folder, nats, coordinator, storeUrl, env);
  }

  get address(): string {
    return this.#coordinator.grpcAddress;
  }

  client(): RunClient {
    return new RunClient({ address: this.address }, { clock: systemClock });
  }

  /** Ends the coordinator and starts another on the same port and store. */
  async restartCoordinator(): Promise<void> {
    const port = Number(this.address.split(':').at(-1));
    await this.#coordinator.close();
    this.#coordinator = await startCoordinator(
      { ...coordinatorOptions(this.#nats.url), port },
      coordinatorModules(this.storeUrl, this.#env),
    );
  }

  startWorker(run: string, env: Readonly<Record<string, string>> = {}): ChildProcess {
    const index = this.workers.length;
    const sampleLog = path.join(this.folder, `samples-${run}-${index}.jsonl`);
    this.#sampleLogs.push(sampleLog);
    const log = openSync(path.join(this.folder, `worker-${index}.log`), 'a');
    const child = spawn(
      process.execPath,
      [
        fileURLToPath(builtModule('cli/main')),
        'worker',
        `--coordinator=${this.address}`,
        `--run=${run}`,
        '--threads=1',
        `--sample-log=${sampleLog}`,
        `--cache-dir=${path.join(this.folder, 'cache')}`,
      ],
      {
        stdio: ['ignore', log, log],
        env: { ...process.env, OMP_NUM_THREADS: '1', COVEY_LOG_LEVEL: 'debug', ...this.#env, ...env },
      },
    );
    closeSync(log);
    this.workers.push(child);
    return child;
  }

  async submit(config: RunConfig): Promise<void> {
    const client = this.client();
    try {
      await client.submitRun(JSON.stringify(config));
    } finally {
      client.close();
    }
  }

  /** Follows a run to its end. `onStep` sees each committed step as it comes. */
  async follow(
    run: string,
    onStep?: (record: StepRecord) => void | Promise<void>,
    signal?: AbortSignal,
  ): Promise<FinishedRun> {
    const client = this.client();
    const byStep = new Map<number, StepRecord>();
    const evaluations = new Map<number, Evaluation>();
    let state = '';
    let reason = '';
    try {
      for await (const { run: view, step, evaluation } of client.watchRun(run, signal ? { signal } : {})) {
        if (evaluation) evaluations.set(evaluation.step, evaluation);
        if (view) ({ state, reason } = view);
        if (step && step.step > 0) {
          byStep.set(step.step, step);
          await onStep?.(step);
        }
      }
      const last = await client.getRun(run);
      ({ state, reason } = last);
    } finally {
      client.close();
    }
    const records = [...byStep.values()].sort((a, b) => a.step - b.step);
    return {
      records,
      losses: records.map((record) => record.loss),
      state,
      reason,
      finalDigest: records.at(-1)?.weightsDigest ?? '',
      evaluations,
    };
  }

  /** Submits a run, gives it workers and follows it until they have ended. `onStep` sees each committed step as it comes. */
  async train(
    config: RunConfig,
    workers: number,
    onStep?: (record: StepRecord) => void | Promise<void>,
  ): Promise<FinishedRun> {
    await this.submit(config);
    for (let i = 0; i < workers; i++) this.startWorker(config.run);
    const finished = await this.follow(config.run, onStep, AbortSignal.timeout(TRAIN_LIMIT_MS));
    await Promise.all(this.workers.map((worker) => ended(worker, () => undefined)));
    return finished;
  }

  /** The consumed samples, in plan order: what was computed in the generation that committed its step. Each lane once. */
  async consumed(records: readonly StepRecord[]): Promise<ConsumedLine[]> {
    const committedBy = new Map(records.map((record) => [record.step - 1, record.generation]));
    const byPlace = new Map<string, ConsumedLine>();
    for (const file of this.#sampleLogs) {
      const text = await readFile(file, 'utf8').catch(() => '');
      for (const line of text.split('\n').filter((one) => one.endsWith('}'))) {
        const parsed = JSON.parse(line) as ConsumedLine;
        const place = `${parsed.step}/${parsed.lane}`;
        if (committedBy.get(parsed.step) !== parsed.generation) continue;
        if (byPlace.has(place)) throw new Error(`lane ${place} was consumed twice`);
        byPlace.set(place, parsed);
      }
    }
    return [...byPlace.values()].sort((a, b) => a.step - b.step || a.lane - b.lane);
  }

  async workerLogs(): Promise<string> {
    const logs = await Promise.all(
      this.workers.map((_, i) => readFile(path.join(this.folder, `worker-${i}.log`), 'utf8').catch(() => '')),
    );
    return logs.map((log, i) => `--- worker ${i}\n${log.split('\n').slice(-40).join('\n')}`).join('\n');
  }

  async killAll(): Promise<void> {
    await Promise.all(this.workers.map((worker) => ended(worker, () => worker.kill('SIGKILL'))));
  }

  async close(): Promise<void> {
    await this.killAll();
    await this.#coordinator.close();
    await this.#nats.stop();
    if (process.env['COVEY_KEEP_TEST_FOLDERS'] !== '1') await rm(this.folder, { recursive: true, force: true });
  }
}

/** Waits for a process to be gone, after `action`. */
export async function ended(child: ChildProcess, action: () => void): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  action();
  await gone;
}

function coordinatorOptions(natsUrl: string) {
  return { host: '127.0.0.1', port: 0, httpPort: 0, natsUrl };
}

function coordinatorModules(storeUrl: string, env: Readonly<Record<string, string>>) {
  const openStore = (url: string) => openObjectStore(url, { env: { ...process.env, ...env } });
  return { store: openStore(storeUrl), openStore, logger: silentLogger, clock: systemClock };
}

/** A cluster for as long as `work` runs; where that fails, the workers' logs are in the error. */
export async function inCluster<T>(work: (cluster: TrainingCluster) => Promise<T>): Promise<T> {
  const cluster = await TrainingCluster.start();
  try {
    return await work(cluster);
  } catch (thrown) {
    throw new Error(`${String(thrown)}\n${await cluster.workerLogs()}`, { cause: thrown });
  } finally {
    await cluster.close();
  }
}
