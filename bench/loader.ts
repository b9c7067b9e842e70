import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import sharp from 'sharp';
import { systemClock } from '../common/clock.ts';
import type { AugmentConfig } from '../common/config/augment-config.ts';
import { silentLogger } from '../common/log.ts';
import { FileStore } from '../common/objectstore/file-store.ts';
import { RandomStream } from '../common/random.ts';
import type { Tokenizer } from '../models/tokenizer/tokenizer.ts';
import { type Dataset, openDataset } from '../worker/data/dataset.ts';
import { LaneLoader } from '../worker/data/lane-loader.ts';
import { pack } from '../worker/data/pack/pack.ts';
import { createPlan } from '../worker/data/plan.ts';
import { ShardCache } from '../worker/data/shard-cache.ts';
import { type BenchOptions, type BenchRow, median } from './support/rows.ts';
import { startTorchPeer, type TorchPeer } from './support/torch-peer.ts';

const SIDE = 224;
const DECODED_SIDE = 256;
const BATCH = 32;
const MEAN = [0.48145466, 0.4578275, 0.40821073] as const;
const STD = [0.26862954, 0.26130258, 0.27577711] as const;
const WORKERS = Math.min(os.cpus().length, 2);

/** One token a caption: the benchmark is about pictures. */
const tokenizer = { contextLength: 1, encode: () => new Int32Array(1) } as unknown as Tokenizer;

/**
 * Pictures a second on two cores: 512×384 JPEG → random resized crop 224 → normalised float32, through the whole lane loader,
 * against PyTorch's DataLoader with PIL and torchvision. Passes take turns; medians.
 */
export async function run({ quick }: BenchOptions): Promise<BenchRow[]> {
  const pictures = BATCH * (quick ? 6 : 12);
  const rounds = quick ? 3 : 5;
  const folder = await mkdtemp(path.join(os.tmpdir(), 'covey-bench-loader-'));
  let peer: TorchPeer | null = null;
  try {
    const dataset = await makeDataset(folder, pictures);
    const cache = new ShardCache(
      { dir: path.join(folder, 'cache'), bytesMax: 2 ** 30 },
      { store: dataset.store, logger: silentLogger },
    );
    const fromJpeg = onePass(dataset, cache, 0);
    const fromDecoded = onePass(dataset, cache, DECODED_SIDE);
    peer = await startTorchPeer('loader.py', {
      folder: path.join(folder, 'in'),
      side: SIDE,
      batch: BATCH,
      workers: WORKERS,
      mean: MEAN,
      std: STD,
    });
    const seconds = { jpeg: [] as number[], decoded: [] as number[], peer: [] as number[] };
    // The first pass warms up, and fills the decoded cache.
    await fromJpeg();
    await fromDecoded();
    for (let round = 0; round < rounds; round++) {
      seconds.jpeg.push(await fromJpeg());
      if (peer !== null) seconds.peer.push(...(await peer.run(1)));
      seconds.decoded.push(await fromDecoded());
    }
    await cache.close();
    const peerRate = peer === null ? null : pictures / median(seconds.peer);
    return [
      row('JPEG 512×384 → 224', pictures / median(seconds.jpeg), peerRate),
      row(`decoded cache ${DECODED_SIDE}² → 224, peer from JPEG`, pictures / median(seconds.decoded), peerRate),
    ];
  } finally {
    await peer?.close();
    await rm(folder, { recursive: true, force: true });
  }
}

function row(name: string, ours: number, peer: number | null): BenchRow {
  return { case: name, ours, peer, ratio: peer === null ? null : ours / peer, unit: 'images/s' };
}

async function makeDataset(folder: string, pictures: number): Promise<Dataset> {
  const input = path.join(folder, 'in');
  await mkdir(input);
  const [width, height] = [512, 384];
  for (let i = 0; i < pictures; i++) {
    const stream = new RandomStream('bench picture', i);
    const pixels = new Uint8Array(width * height * 3);
    const phase = [0, 1, 2].map(() => stream.uniform(0, 6));
    for (let at = 0; at < pixels.length; at++) {
      const x = Math.floor(at / 3) % width;
      const y = Math.floor(at / 3 / width);
      pixels[at] =
        128 +
        60 * Math.sin(phase[at % 3]! + x / 17) +
        50 * Math.cos(phase[(at + 1) % 3]! + y / 23 + x / 61) +
        ((at * 31) % 17);
    }
    const name = String(i).padStart(5, '0');
    await writeFile(
      path.join(input, `${name}.jpg`),
      await sharp(pixels, { raw: { width, height, channels: 3 } })
        .jpeg({ quality: 90 })
        .toBuffer(),
    );
    await writeFile(path.join(input, `${name}.txt`), `picture ${i}`);
  }
  const url = pathToFileURL(path.join(folder, 'out')).href;
  const store = new FileStore({ url }, { clock: systemClock, random: new RandomStream('bench') });
  await pack({ name: 'bench', source: { kind: 'folder', path: input }, destination: store }, { logger: silentLogger });
  return openDataset(store, 'manifest.json');
}

/** A function that loads and normalises one epoch and returns its seconds. */
function onePass(dataset: Dataset, cache: ShardCache, decodedSide: number): () => Promise<number> {
  const { shardSampleCounts, sampleCount } = dataset;
  const plan = createPlan({
    manifestSha256: dataset.sha256,
    shardSampleCounts,
    seed: 0,
    globalBatch: BATCH,
    lanes: 1,
    blockShards: 8,
  });
  const augment: AugmentConfig = {
    scale: [0.9, 1],
    ratio: [3 / 4, 4 / 3],
    shift: 0,
    zoom: [1, 1],
    rotateDegrees: 0,
    colorJitter: 0,
    hueJitter: 0,
    grayscale: 0,
    flip: 0,
  };
  const loader = new LaneLoader(
    {
      plan,
      imageSide: SIDE,
      augment,
      decoded: { side: decodedSide, bytesMax: sampleCount * DECODED_SIDE ** 2 * 3 },
      pixelsMax: 5e7,
    },
    { dataset, cache, tokenizer, logger: silentLogger },
  );
  const buffers = [0, 1].map(() => ({
    pixels: new Uint8Array(loader.geometry.pixelBytes),
    tokens: new Int32Array(loader.geometry.tokenCount),
    labels: new Int32Array(loader.geometry.labelCount),
    seeds: new Uint32Array(loader.geometry.seedCount),
  }));
  const normalised = new Float32Array(loader.geometry.pixelBytes);
  const tables = MEAN.map((mean, c) =>
    Float32Array.from({ length: 256 }, (_, level) => (level / 255 - mean) / STD[c]!),
  );
  let epoch = 0;
  return async () => {
    const begin = performance.now();
    const first = epoch++ * plan.stepsPerEpoch;
    // Two steps in flight, as the prefetcher does.
    let pending = loader.load(first, 0, buffers[0]!);
    for (let i = 0; i < plan.stepsPerEpoch; i++) {
      await pending;
      if (i + 1 < plan.stepsPerEpoch) pending = loader.load(first + i + 1, 0, buffers[(i + 1) % 2]!);
      normalise(buffers[i % 2]!.pixels, tables, normalised);
    }
    return (performance.now() - begin) / 1000;
  };
}

function normalise(pixels: Uint8Array, [red, green, blue]: readonly Float32Array[], into: Float32Array): void {
  for (let i = 0; i < pixels.length; i += 3) {
    into[i] = red![pixels[i]!]!;
    into[i + 1] = green![pixels[i + 1]!]!;
    into[i + 2] = blue![pixels[i + 2]!]!;
  }
}
