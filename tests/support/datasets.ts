import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import sharp from 'sharp';
import { systemClock } from '../../common/clock.ts';
import { silentLogger } from '../../common/log.ts';
import { FileStore } from '../../common/objectstore/file-store.ts';
import { MemoryStore } from '../../common/objectstore/memory-store.ts';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { RandomStream } from '../../common/random.ts';
import { type Dataset, openDataset } from '../../worker/data/dataset.ts';
import { encodeJson, type IndexedSample, type ShardEntry } from '../../worker/data/manifest.ts';
import { sha256Hex } from '../../worker/data/sha256.ts';
import { paddedSize, TAR_BLOCK, tarHeader } from '../../worker/data/tar-headers.ts';
import { listTar } from '../../worker/data/tar-index.ts';
import { samplesOfTar } from '../../worker/data/tar-samples.ts';

/** A folder of its own, removed by `using`-like disposal in afterEach. */
export async function temporaryFolder(): Promise<{ readonly path: string; readonly remove: () => Promise<void> }> {
  const folder = await mkdtemp(path.join(tmpdir(), 'covey-data-'));
  return { path: folder, remove: () => rm(folder, { recursive: true, force: true }) };
}

export function memoryStore(name = 'memory://test'): MemoryStore {
  return new MemoryStore({ url: name, objects: new Map() }, { clock: systemClock });
}

export function fileStore(folder: string): FileStore {
  return new FileStore(
    { url: pathToFileURL(folder).href },
    { clock: systemClock, random: new RandomStream('file store') },
  );
}

/** A smooth picture with noise, different for every seed. */
export async function picture(
  seed: number,
  options: { readonly width?: number; readonly height?: number; readonly format?: 'jpeg' | 'png' | 'webp' } = {},
): Promise<Uint8Array> {
  const { width = 40, height = 32, format = 'png' } = options;
  const stream = new RandomStream('picture', seed);
  const phase = [stream.uniform(0, 6), stream.uniform(0, 6), stream.uniform(0, 6)];
  const pixels = new Uint8Array(width * height * 3);
  for (let i = 0; i < pixels.length; i++) {
    const x = Math.floor(i / 3) % width;
    const y = Math.floor(i / 3 / width);
    pixels[i] = 128 + 90 * Math.sin(phase[i % 3]! + x / 5 + y / 7) + stream.uniform(-20, 20);
  }
  return sharp(pixels, { raw: { width, height, channels: 3 } })
    .toFormat(format)
    .toBuffer();
}

/** A tar of the given members, in order, with the two closing blocks. */
export function tarOf(members: readonly (readonly [string, Uint8Array | string])[]): Buffer {
  const parts = members.flatMap(([name, content]) => {
    const bytes = typeof content === 'string' ? new TextEncoder().encode(content) : content;
    return [tarHeader(name, bytes.length), bytes, new Uint8Array(paddedSize(bytes.length) - bytes.length)];
  });
  return Buffer.concat([...parts, new Uint8Array(2 * TAR_BLOCK)]);
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/** Puts shards of samples (tar, index, manifest) into a store and opens the dataset. `image` may be broken bytes. */
export async function makeDataset(
  store: ObjectStore,
  shards: readonly (readonly {
    readonly image: Uint8Array;
    readonly caption: string;
    readonly label?: number | string;
  }[])[],
): Promise<Dataset> {
  const entries: ShardEntry[] = [];
  for (const [number, samples] of shards.entries()) {
    const tar = tarOf(
      samples.flatMap(
        ({ image, caption, label }, i) =>
          [
            [`${i}.png`, image],
            [`${i}.txt`, caption],
            ...(label === undefined ? [] : [[`${i}.cls`, String(label)] as const]),
          ] as const,
      ),
    );
    const listed = samplesOfTar(await listTar(once(tar)));
    const index = encodeJson({ version: 1, samples: [...listed.samples] as IndexedSample[] });
    const entry = {
      key: `${number}.tar`,
      bytes: tar.length,
      sha256: sha256Hex(tar),
      samples: listed.samples.length,
      indexKey: `${number}.index.json`,
      indexSha256: sha256Hex(index),
    };
    await store.put(entry.key, tar);
    await store.put(entry.indexKey, index);
    entries.push(entry);
  }
  const sampleCount = entries.reduce((sum, entry) => sum + entry.samples, 0);
  const manifest = { version: 1 as const, name: 'test', sampleCount, shards: entries, sources: {}, createdBy: 'test' };
  await store.put('manifest.json', encodeJson(manifest));
  return openDataset(store, 'manifest.json');
}

export const logger = silentLogger;
