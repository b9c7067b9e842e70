import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import type { DatasetShard } from '../../worker/data/dataset.ts';
import { sha256Hex } from '../../worker/data/sha256.ts';
import { ShardCache } from '../../worker/data/shard-cache.ts';
import { fileStore, logger, memoryStore, temporaryFolder } from '../support/datasets.ts';

const SHARD_BYTES = 1000;
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let store: ReturnType<typeof memoryStore>;
let shards: DatasetShard[];
let caches: ShardCache[];

async function putShards(target: ObjectStore): Promise<DatasetShard[]> {
  return Promise.all(
    Array.from({ length: 5 }, async (_, index) => {
      const bytes = Uint8Array.from({ length: SHARD_BYTES }, (__, i) => (i * (index + 3)) % 251);
      const key = `${index}.tar`;
      await target.put(key, bytes);
      return {
        key,
        storeKey: key,
        bytes: SHARD_BYTES,
        sha256: sha256Hex(bytes),
        samples: 1,
        indexKey: 'x',
        indexSha256: 'x',
        index,
        firstSample: index,
      };
    }),
  );
}

beforeEach(async () => {
  folder = await temporaryFolder();
  store = memoryStore();
  shards = await putShards(store);
  caches = [];
});
afterEach(async () => {
  for (const cache of caches) await cache.close();
  await folder.remove();
});

/** The store with some calls replaced. */
function storeWith(change: Partial<ObjectStore>): ObjectStore {
  return Object.assign(
    Object.create(store) as ObjectStore,
    { getFile: store.getFile.bind(store), get: store.get.bind(store) },
    change,
  );
}

function makeCache(options: { bytesMax?: number; from?: ObjectStore; attemptsMax?: number } = {}): {
  cache: ShardCache;
  results: string[];
  sizes: number[];
} {
  const results: string[] = [];
  const sizes: number[] = [];
  const metrics = {
    request: (result: string) => results.push(result),
    eviction: () => results.push('eviction'),
    size: (bytes: number) => sizes.push(bytes),
  };
  const clock = { now: () => Date.now(), sleep: async () => undefined };
  const cache = new ShardCache(
    { dir: folder.path, bytesMax: options.bytesMax ?? 1e6, attemptsMax: options.attemptsMax ?? 3 },
    { store: options.from ?? store, logger, metrics, clock },
  );
  caches.push(cache);
  return { cache, results, sizes };
}

const cached = () => readdirSync(path.join(folder.path, 'covey-shards-v1'));
const expected = (index: number, offset: number, size: number) =>
  Uint8Array.from({ length: size }, (_, i) => ((i + offset) * (index + 3)) % 251);

describe('ShardCache', () => {
  it('downloads a shard once for many readers and finds it again in another process', async () => {
    const { cache, results } = makeCache();
    const reads = await Promise.all(Array.from({ length: 20 }, (_, i) => cache.read(shards[2]!, i * 10, 30)));
    reads.forEach((bytes, i) => {
      expect(bytes).toEqual(expected(2, i * 10, 30));
    });
    expect(results).toEqual(['miss']);
    const second = makeCache();
    expect(await second.cache.read(shards[2]!, 5, 5)).toEqual(expected(2, 5, 5));
    expect(second.results).toEqual(['hit']);
  });

  it('lets two caches in one folder want the same shard at once', async () => {
    const pairs = [makeCache(), makeCache()];
    await Promise.all(pairs.flatMap(({ cache }) => shards.map((shard) => cache.read(shard, 0, 10))));
    expect(pairs.flatMap(({ results }) => results).filter((result) => result === 'miss').length).toBe(5);
    expect(cached().sort()).toEqual(shards.map((shard) => `${shard.sha256}.tar`).sort());
  });

  it('stays within its bytes, evicts the least recently used, and still reads everything', async () => {
    const { cache, results, sizes } = makeCache({ bytesMax: 2 * SHARD_BYTES });
    for (const round of [0, 1]) {
      for (const shard of shards) {
        expect(await cache.read(shard, round, 50)).toEqual(expected(shard.index, round, 50));
        expect(cached().filter((name) => name.endsWith('.tar')).length).toBeLessThanOrEqual(2);
      }
    }
    expect(results.filter((result) => result === 'eviction').length).toBeGreaterThanOrEqual(8);
    expect(sizes.slice(0, 3)).toEqual([SHARD_BYTES, 2 * SHARD_BYTES, 2 * SHARD_BYTES]);
  });

  it('never removes what it did not make', async () => {
    mkdirSync(path.join(folder.path, 'covey-shards-v1'), { recursive: true });
    const mine = ['notes.txt', 'covey-shards-v1/thesis.tar', `covey-shards-v1/${'z'.repeat(64)}.tar`];
    for (const name of mine) writeFileSync(path.join(folder.path, name), 'x'.repeat(5000));
    const { cache } = makeCache({ bytesMax: SHARD_BYTES });
    for (const shard of shards) await cache.read(shard, 0, 1);
    for (const name of mine)
      expect(readdirSync(path.dirname(path.join(folder.path, name)))).toContain(path.basename(name));
  });

  it('reads a file store in place, and finds a changed byte', async () => {
    const files = fileStore(path.join(folder.path, 'store'));
    const [first, second] = await putShards(files);
    writeFileSync(path.join(folder.path, 'store', second!.key), new Uint8Array(SHARD_BYTES));
    const { cache, results } = makeCache({ from: files });
    expect(await cache.read(first!, 3, 9)).toEqual(expected(0, 3, 9));
    expect(results).toEqual(['in_place']);
    expect(readdirSync(folder.path)).toEqual(['store']);
    await expect(cache.read(second!, 0, 1)).rejects.toMatchObject({
      code: 'DATA_CORRUPT',
      fields: { shard: second!.key },
    });
    expect(readdirSync(path.join(folder.path, 'store'))).toContain(second!.key);
  });

  it('downloads again when a byte is flipped on the way, and gives up by name when it always is', async () => {
    let flips = 2;
    const getFile: ObjectStore['getFile'] = async (key, to) => {
      const bytes = Uint8Array.from((await store.get(key)).bytes);
      if (flips-- > 0) bytes[17]! ^= 4;
      writeFileSync(to, bytes);
      return bytes.length;
    };
    const { cache } = makeCache({ from: storeWith({ getFile }) });
    expect(await cache.read(shards[0]!, 0, 40)).toEqual(expected(0, 0, 40));
    flips = 100;
    await expect(cache.read(shards[1]!, 0, 1)).rejects.toMatchObject({
      code: 'DATA_CORRUPT',
      fields: { shard: '1.tar' },
    });
    expect(cached()).toEqual([`${shards[0]!.sha256}.tar`]);
    flips = 0;
    expect(await cache.read(shards[1]!, 0, 4)).toEqual(expected(1, 0, 4));
  });

  it('makes room on a full disk, and says so when there is none to make', async () => {
    const room = { shards: 2 };
    const getFile: ObjectStore['getFile'] = async (key, to) => {
      if (cached().filter((name) => name.endsWith('.tar')).length >= room.shards)
        throw Object.assign(new Error('no space'), { code: 'ENOSPC' });
      return store.getFile(key, to);
    };
    const { cache } = makeCache({ from: storeWith({ getFile }) });
    for (const shard of shards) expect(await cache.read(shard, 0, 8)).toEqual(expected(shard.index, 0, 8));
    room.shards = 0;
    await expect(cache.read(shards[0]!, 0, 8)).rejects.toMatchObject({
      code: 'RESOURCE_EXHAUSTED',
      message: expect.stringContaining('full'),
    });
  });

  it('says what to raise when a shard is larger than the cache, and takes over a dead process’s lock', async () => {
    await expect(makeCache({ bytesMax: 10 }).cache.read(shards[0]!, 0, 1)).rejects.toThrow(/cacheBytesMax/);
    mkdirSync(path.join(folder.path, 'covey-shards-v1'), { recursive: true });
    const base = path.join(folder.path, 'covey-shards-v1', shards[0]!.sha256);
    writeFileSync(`${base}.lock`, '999999999');
    writeFileSync(`${base}.999999999.part`, 'half');
    expect(await makeCache().cache.read(shards[0]!, 0, 4)).toEqual(expected(0, 0, 4));
    expect(cached()).toEqual([`${shards[0]!.sha256}.tar`]);
  });
});
