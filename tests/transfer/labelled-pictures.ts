import sharp from 'sharp';
import { augmentSchema } from '../../common/config/augment-config.ts';
import { RandomStream } from '../../common/random.ts';
import { type LabelledSet, readLabelledSet } from '../../transfer/data/labelled-set.ts';
import { PictureSource } from '../../transfer/data/picture-source.ts';
import type { Dataset } from '../../worker/data/dataset.ts';
import { ShardCache } from '../../worker/data/shard-cache.ts';
import { logger, makeDataset, memoryStore } from '../support/datasets.ts';
import { SMALL_VISION } from './small-backbone.ts';

const COLORS = { green: [60, 170, 70], red: [180, 60, 60], blue: [60, 70, 180] } as const;

/** A noisy square of one colour: classes that a little network tells apart. */
async function square(color: readonly number[], seed: number, style: Style): Promise<Uint8Array> {
  const stream = new RandomStream('square', seed);
  const ground = style === 'plain' ? 0 : 50;
  // Of stripes every other column is lighter.
  const light = (i: number) => (style === 'striped' && Math.floor(i / 3) % 2 === 0 ? ground : -ground);
  const pixels = Uint8ClampedArray.from(
    { length: 20 * 20 * 3 },
    (_, i) => color[i % 3]! + light(i) + stream.uniform(-50, 50),
  );
  return sharp(pixels, { raw: { width: 20, height: 20, channels: 3 } })
    .png()
    .toBuffer();
}

/** How the squares of a domain are painted. */
export type Style = 'plain' | 'striped';

export interface LabelledPictures {
  readonly dataset: Dataset;
  readonly set: LabelledSet;
  readonly pictures: PictureSource;
  readonly cache: ShardCache;
  close(): Promise<void>;
}

/** `perClass` pictures of each of three colours. */
export function colouredSamples(perClass: number, style: Style = 'plain') {
  return Promise.all(
    Array.from({ length: 3 * perClass }, async (_, i) => {
      const [label, color] = Object.entries(COLORS)[i % 3]!;
      return { image: await square(color, i, style), caption: label, label };
    }),
  );
}

/** They in two shards, opened. */
export async function labelledPictures(
  folder: string,
  perClass: number,
  style: Style = 'plain',
): Promise<LabelledPictures> {
  const samples = await colouredSamples(perClass, style);
  const half = Math.ceil(samples.length / 2);
  const store = memoryStore();
  const dataset = await makeDataset(store, [samples.slice(0, half), samples.slice(half)]);
  const cache = new ShardCache({ dir: folder, bytesMax: 2 ** 24 }, { store, logger });
  const augment = augmentSchema.parse({});
  const pictures = new PictureSource(
    { imageSide: SMALL_VISION.imageSize, pixelsMax: 1e6, augment, seed: 1 },
    { cache },
  );
  return { dataset, set: await readLabelledSet(dataset, {}), pictures, cache, close: () => cache.close() };
}
