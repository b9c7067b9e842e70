import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import sharp from 'sharp';
import { startLocalCluster } from '../cli/cluster/local-cluster.ts';
import { DEMO_MODEL } from '../cli/demo/recipe.ts';
import { systemClock } from '../common/clock.ts';
import { type ModelConfig, type RunConfig, runConfigSchema } from '../common/config/run-config.ts';
import { silentLogger } from '../common/log.ts';
import { openObjectStore } from '../common/objectstore/open.ts';
import { RandomStream } from '../common/random.ts';
import { loadEngine } from '../engine/index.ts';
import { resolveModelConfig } from '../models/model-config.ts';
import { trainBpe } from '../models/tokenizer/bpe-trainer.ts';
import type { StepRecord } from '../proto/gen/covey/v1/StepRecord.ts';
import { RunClient } from '../proto/run-client.ts';
import { pack } from '../worker/data/pack/pack.ts';
import { SoloCollectives } from '../worker/train/blocking-collectives.ts';
import { newTrainer } from '../worker/train/new-trainer.ts';
import { syntheticLanes } from '../worker/train/synthetic-lanes.ts';
import { type BenchOptions, type BenchRow, median } from './support/rows.ts';
import { startTorchPeer } from './support/torch-peer.ts';

const GLOBAL_BATCH = 256;
const LANES = 4;

/**
 * The demo model's training step: covey with one worker (as it trains: four lanes, lane tree, AdamW) against PyTorch on the
 * whole batch, equal threads, interleaved; then, with two workers, the share of a step that is not compute.
 */
export async function run({ quick }: BenchOptions): Promise<BenchRow[]> {
  const rows: BenchRow[] = [];
  for (const threads of [1, 2]) {
    rows.push(await againstTorch('demo', DEMO_MODEL, threads, 'bf16', quick));
    rows.push(await againstTorch('demo', DEMO_MODEL, threads, 'fp32', quick));
    rows.push(await againstTorch('tiny', resolveModelConfig('tiny'), threads, 'bf16', quick));
  }
  rows.push(await twoWorkers(quick));
  return rows;
}

async function againstTorch(
  label: string,
  model: ModelConfig,
  threads: number,
  precision: 'fp32' | 'bf16',
  quick: boolean,
): Promise<BenchRow> {
  const name = `step, ${label}, batch ${GLOBAL_BATCH}, ${precision}, ${threads} thread${threads > 1 ? 's' : ''}`;
  const peer = await startTorchPeer('step.py', { threads, precision, batch: GLOBAL_BATCH, model });
  const ours = await startTrainer(model, threads, precision);
  const rounds = quick ? 2 : 5;
  const oursMs: number[] = [];
  const peerMs: number[] = [];
  try {
    ours.step();
    await peer?.run(1);
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < 2; i++) oursMs.push(ours.step());
      if (peer) peerMs.push(...(await peer.run(2)).map((seconds) => 1000 * seconds));
    }
  } finally {
    ours.close();
    await peer?.close();
  }
  const mine = median(oursMs);
  const theirs = peerMs.length > 0 ? median(peerMs) : null;
  return { case: name, ours: mine, peer: theirs, ratio: theirs === null ? null : theirs / mine, unit: 'ms/step' };
}

async function startTrainer(model: ModelConfig, threads: number, precision: 'fp32' | 'bf16') {
  const engine = await loadEngine({ engine: 'auto', threads });
  const config = trainingConfig(model, precision);
  const { model: clip, trainer } = newTrainer(config, model, engine);
  trainer.holdLanes(0, LANES);
  const collectives = new SoloCollectives(LANES, (target, source) => engine.addVectors(target, source));
  const lanes = syntheticLanes(model, { lanes: LANES, laneBatch: GLOBAL_BATCH / LANES });
  let step = 0;
  return {
    step: (): number => {
      const began = performance.now();
      trainer.step(step++, 1e-4, lanes, collectives);
      return performance.now() - began;
    },
    close: (): void => {
      trainer.dispose();
      clip.dispose();
      engine.close();
    },
  };
}

function trainingConfig(model: ModelConfig, precision: 'fp32' | 'bf16'): RunConfig {
  return runConfigSchema.parse({
    run: 'bench',
    seed: 1,
    store: 'file:///unused',
    model,
    data: { manifest: 'file:///unused', mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25] },
    train: {
      steps: 1,
      globalBatch: GLOBAL_BATCH,
      lanes: LANES,
      precision,
      nonFinite: 'stop',
      optimizer: { weightDecay: 0.1 },
    },
  });
}

/** Two worker processes of one thread each on one machine: seconds of a step outside forward, backward and update. */
async function twoWorkers(quick: boolean): Promise<BenchRow> {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'covey-bench-'));
  const controller = new AbortController();
  const storeUrl = pathToFileURL(path.join(folder, 'store')).href;
  try {
    const data = await syntheticDataset(path.join(folder, 'data'));
    const cluster = await startLocalCluster(
      { workers: 2, threads: 1, store: storeUrl, port: 0, httpPort: 0, logFolder: path.join(folder, 'logs') },
      { clock: systemClock, logger: silentLogger, env: process.env, signal: controller.signal },
    );
    try {
      const records = await trainOn(cluster.coordinatorAddress, storeUrl, data, quick ? 12 : 40);
      const shares = records.slice(4).map(shareOutsideCompute);
      return {
        case: 'two workers, bf16: share of step time outside compute',
        ours: median(shares),
        peer: 0.15,
        ratio: 0.15 / median(shares),
        unit: 'share (peer: the limit aimed at)',
      };
    } finally {
      await cluster.close();
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function shareOutsideCompute(record: StepRecord): number {
  const compute = ['forward', 'backward', 'optim'].reduce((sum, phase) => sum + (record.phaseSeconds[phase] ?? 0), 0);
  return Math.max(0, 1 - compute / record.stepSeconds);
}

async function syntheticDataset(folder: string): Promise<string> {
  const pictures = path.join(folder, 'pictures');
  await mkdir(pictures, { recursive: true });
  const random = new RandomStream('bench-pictures');
  const noise = () => Buffer.from(Uint8Array.from({ length: 64 * 64 * 3 }, () => random.integer(256)));
  for (let i = 0; i < 600; i++) {
    await sharp(noise(), { raw: { width: 64, height: 64, channels: 3 } })
      .png()
      .toFile(path.join(pictures, `${i}.png`));
    const { writeFile } = await import('node:fs/promises');
    await writeFile(path.join(pictures, `${i}.txt`), `picture number ${i}`);
  }
  const url = pathToFileURL(folder).href;
  const store = openObjectStore(url);
  await pack(
    { name: 'noise', source: { kind: 'folder', path: pictures }, destination: store },
    { logger: silentLogger },
  );
  const captions = Array.from({ length: 600 }, (_, i) => `picture number ${i}`);
  await store.put('tokenizer.json', Buffer.from(trainBpe(captions, { vocabSize: DEMO_MODEL.text.vocabSize })));
  await store.close();
  return `${url}/manifest.json`;
}

async function trainOn(address: string, store: string, manifest: string, steps: number): Promise<StepRecord[]> {
  const client = new RunClient({ address }, { clock: systemClock });
  const config = {
    run: 'bench',
    store,
    model: DEMO_MODEL,
    data: { manifest, tokenizer: manifest.replace('manifest.json', 'tokenizer.json'), decoded: { side: 64 } },
    train: { steps, globalBatch: GLOBAL_BATCH, lanes: LANES, precision: 'bf16' },
    workers: { min: 2, expected: 2 },
  };
  const records: StepRecord[] = [];
  try {
    await client.submitRun(JSON.stringify(runConfigSchema.parse(config)));
    for await (const { step } of client.watchRun('bench')) if (step && step.step > 0) records.push(step);
  } finally {
    client.close();
  }
  return records;
}
