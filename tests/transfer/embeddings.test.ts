import { readdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { parquetReadObjects } from 'hyparquet';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Engine, loadEngine } from '../../engine/index.ts';
import { embedDataset } from '../../transfer/features/embed-dataset.ts';
import { type EmbeddingFacts, EmbeddingFolder } from '../../transfer/features/embedding-folder.ts';
import { labelledFeatures, networkEncoder } from '../../transfer/features/extract-features.ts';
import { readNpy, writeNpy } from '../../transfer/features/npy.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { temporaryFolder } from '../support/datasets.ts';
import { type LabelledPictures, labelledPictures } from './labelled-pictures.ts';
import { smallBackbone } from './small-backbone.ts';

let engine: Engine;
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let data: LabelledPictures;
let network: TransferNetwork;
beforeAll(async () => {
  engine = await loadEngine({ engine: 'auto', device: 'cpu', threads: 1 });
  folder = await temporaryFolder();
  data = await labelledPictures(path.join(folder.path, 'cache'), 6);
  network = new TransferNetwork(smallBackbone(), { seed: 0, precision: 'fp32' });
});
afterAll(async () => {
  network.dispose();
  await data.close();
  engine.close();
  await folder.remove();
});

function facts(own: Partial<EmbeddingFacts> = {}): EmbeddingFacts {
  const { digest, origin } = network.source;
  const { sha256 } = data.dataset;
  return {
    version: 1,
    backbone: { digest, origin },
    dataset: { name: 'test', sha256, manifest: 'memory://test/manifest.json' },
    dimensions: network.featureWidth,
    formats: ['npy', 'parquet'],
    normalised: false,
    ...own,
  };
}

const embed = (into: EmbeddingFolder, signal?: AbortSignal, part?: { index: number; of: number }) =>
  embedDataset(
    { pixelsMax: 1e6, ...(part ? { part } : {}) },
    { encoder: networkEncoder(engine, network), dataset: data.dataset, cache: data.cache, folder: into, signal },
  );

describe('npy files', () => {
  it('begin as NumPy writes them, and come back', () => {
    const values = Float32Array.of(1, 2, 3, 4, 5, 6);
    const file = writeNpy({ values, columns: 3 });
    expect(Buffer.from(file.subarray(0, 10)).toString('hex')).toBe('934e554d50590100' + '7600');
    expect(Buffer.from(file.subarray(10, 70)).toString()).toBe(
      "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), } ",
    );
    expect(file.length).toBe(128 + 24);
    expect(readNpy(file)).toEqual({ values, columns: 3 });
    expect(() => readNpy(file.subarray(0, 140))).toThrow(/12 bytes are not 2 rows of 3/);
    expect(() => readNpy(new Uint8Array(40))).toThrow(/no npy file/);
  });
});

describe('embeddings of a dataset', () => {
  it('have a row for every sample, equal in npy, parquet and in memory', async () => {
    const into = await EmbeddingFolder.prepare(path.join(folder.path, 'whole'), facts());
    expect(await embed(into)).toEqual({ done: 18, total: 18, skipped: 0 });
    const { keys, features } = await into.readAll();
    const expected = await labelledFeatures(data.set.samples, { engine, network, pictures: data.pictures });
    expect(keys.map(({ key }) => key)).toEqual(data.set.samples.map(({ located }) => located.sampleId));
    expect(keys[0]).toEqual({ key: '0.tar/0', label: 'green', caption: 'green' });
    features.values.forEach((value, i) => {
      expect(value).toBeCloseTo(expected.features_ND[i]!, 5);
    });
    const bytes = await import('node:fs/promises').then(({ readFile }) =>
      readFile(path.join(into.folder, '00001.parquet')),
    );
    const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) as ArrayBuffer;
    const rows = await parquetReadObjects({ file: buffer });
    expect(rows).toHaveLength(9);
    expect(rows[0]!['key']).toBe('1.tar/0');
    const second = await into.read(1);
    expect(Float32Array.from(rows[2]!['embedding'] as number[])).toEqual(
      second.features.values.subarray(2 * 32, 3 * 32),
    );
  });

  it('are gone on with after an interruption: finished shards are not computed again', async () => {
    const target = path.join(folder.path, 'resumed');
    const into = await EmbeddingFolder.prepare(target, facts());
    await embed(into);
    // As if killed while the second shard was written: its keys come last.
    await rm(path.join(target, '00001.keys.jsonl'));
    await writeFile(path.join(target, '00001.npy.part'), 'half');
    expect(await into.finishedShards()).toEqual([0]);
    const whole = await EmbeddingFolder.open(path.join(folder.path, 'whole'));
    expect(await embed(await EmbeddingFolder.prepare(target, facts()))).toEqual({ done: 18, total: 18, skipped: 9 });
    expect(await into.readAll()).toEqual(await whole.readAll());
    expect((await readdir(target)).some((name) => name.endsWith('.part'))).toBe(false);
  });

  it('may be made in parts by several processes', async () => {
    const into = await EmbeddingFolder.prepare(path.join(folder.path, 'parts'), facts({ formats: ['npy'] }));
    expect(await embed(into, undefined, { index: 1, of: 2 })).toEqual({ done: 9, total: 9, skipped: 0 });
    expect(await into.finishedShards()).toEqual([1]);
    await embed(into, undefined, { index: 0, of: 2 });
    expect(await into.finishedShards()).toEqual([0, 1]);
  });

  it('stop at an interrupt, and refuse a folder of something else', async () => {
    const target = path.join(folder.path, 'stopped');
    const into = await EmbeddingFolder.prepare(target, facts());
    await expect(embed(into, AbortSignal.abort())).rejects.toMatchObject({ code: 'CANCELLED' });
    await expect(EmbeddingFolder.prepare(target, facts({ normalised: true }))).rejects.toThrow(/normalised differ/);
    await expect(EmbeddingFolder.open(folder.path)).rejects.toMatchObject({ code: 'NOT_FOUND' });
  });
});
