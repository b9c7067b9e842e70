import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import sharp from 'sharp';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { openDataset, splitManifestUrl } from '../../worker/data/dataset.ts';
import { ICON_CATEGORIES, iconSetSamples } from '../../worker/data/pack/icon-source.ts';
import { type PackOptions, pack } from '../../worker/data/pack/pack.ts';
import { readImageBytes } from '../../worker/data/sample-source.ts';
import { ShardCache } from '../../worker/data/shard-cache.ts';
import { fileStore, logger, memoryStore, picture, tarOf, temporaryFolder } from '../support/datasets.ts';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(() => folder.remove());

const write = (name: string, content: Uint8Array | string) => {
  const file = path.join(folder.path, 'in', name);
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, content);
};

/** A folder with good pictures and every kind of bad one. */
async function fillFolder(): Promise<void> {
  write('b.jpg', await picture(1, { format: 'jpeg' }));
  write('b.txt', 'a bee\n');
  write('a.webp', await picture(2, { format: 'webp' }));
  write('a.txt', 'an ant');
  write('golden-retriever/1.png', await picture(3));
  write('alone.txt', 'no picture');
  write('uncaptioned.png', await picture(4));
  write('empty.png', '');
  write('empty.txt', 'nothing');
  write('half.png', (await picture(5)).subarray(0, 300));
  write('half.txt', 'half');
  write(
    'bomb.png',
    await sharp({ create: { width: 2000, height: 2000, channels: 3, background: '#777' } })
      .png()
      .toBuffer(),
  );
  write('bomb.txt', 'bomb');
  symlinkSync('b.jpg', path.join(folder.path, 'in', 'link.jpg'));
}

describe('pack from a folder', () => {
  const options = (store = memoryStore()): PackOptions => ({
    name: 'test',
    source: { kind: 'folder', path: path.join(folder.path, 'in') },
    destination: store,
    pixelsMax: 1_000_000,
  });

  it('packs what is whole and reports everything else by reason', async () => {
    await fillFolder();
    const { report, manifest } = await pack(options(), { logger });
    expect(manifest.sampleCount).toBe(3);
    expect(report).toMatchObject({
      packed: 3,
      skipped: 6,
      skippedByReason: {
        'caption-without-image': 1,
        'image-without-caption': 1,
        link: 1,
        'too-many-pixels': 1,
        undecodable: 1,
        'zero-byte': 1,
      },
    });
    expect(report.skippedNamed).toContainEqual({ name: 'half.png', reason: 'undecodable' });
  });

  it('writes the same bytes again from the same input, whatever the concurrency', async () => {
    await fillFolder();
    const first = await pack({ ...options(), concurrency: 1 }, { logger });
    const second = await pack({ ...options(), concurrency: 5 }, { logger });
    expect(second.manifestSha256).toBe(first.manifestSha256);
  });

  it('makes a dataset that reads back, in several shards, from memory and from files', async () => {
    await fillFolder();
    for (const store of [memoryStore(), fileStore(path.join(folder.path, 'out'))]) {
      const packed = await pack(
        { ...options(store as never), prefix: 'data/test/', samplesPerShardMax: 2 },
        { logger },
      );
      const dataset = await openDataset(store, 'data/test/manifest.json', { expectedSha256: packed.manifestSha256 });
      expect(dataset.shardSampleCounts).toEqual([2, 1]);
      const cache = new ShardCache({ dir: path.join(folder.path, 'cache'), bytesMax: 1e8 }, { store, logger });
      const read = [];
      for await (const located of dataset.samples()) {
        const bytes = await readImageBytes(cache, located);
        read.push([located.record.captions[0], located.record.meta?.['path'], (await sharp(bytes).metadata()).format]);
      }
      await cache.close();
      expect(read).toEqual([
        ['an ant', 'a.webp', 'webp'],
        ['a bee', 'b.jpg', 'jpeg'],
        ['golden retriever', 'golden-retriever/1.png', 'png'],
      ]);
    }
  });

  it('refuses a dataset whose manifest or index was changed', async () => {
    await fillFolder();
    const store = memoryStore();
    const { manifest } = await pack(options(store), { logger });
    await expect(openDataset(store, 'manifest.json', { expectedSha256: '0'.repeat(64) })).rejects.toMatchObject({
      code: 'DATA_CORRUPT',
    });
    await store.put(manifest.shards[0]!.indexKey, new TextEncoder().encode('{}'));
    const dataset = await openDataset(store, 'manifest.json');
    await expect(dataset.locate(0)).rejects.toMatchObject({
      code: 'DATA_CORRUPT',
      fields: { indexKey: manifest.shards[0]!.indexKey },
    });
    await store.put('manifest.json', new TextEncoder().encode('{"version":1,"shards":[]}'));
    await expect(openDataset(store, 'manifest.json')).rejects.toThrow(/sampleCount/);
  });

  it('shrinks pictures when asked to', async () => {
    write('x/1.png', await picture(1, { width: 200, height: 100 }));
    const store = memoryStore();
    await pack({ ...options(store), resize: { shortestSide: 20, format: 'jpeg' } }, { logger });
    const { record, shard } = await (await openDataset(store, 'manifest.json')).locate(0);
    const [offset, length] = record.files[record.image]!;
    const { bytes } = await store.get(shard.storeKey, { range: { offset, length } });
    expect(await sharp(bytes).metadata()).toMatchObject({ format: 'jpeg', width: 40, height: 20 });
  });

  it('fails clearly without a folder or a usable sample, and stops at the signal', async () => {
    await expect(pack(options(), { logger })).rejects.toMatchObject({ code: 'NOT_FOUND' });
    write('alone.txt', 'x');
    await expect(pack(options(), { logger })).rejects.toThrow(/no usable sample.*caption-without-image/);
    await expect(pack(options(), { logger, signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'CANCELLED' });
  });
});

describe('pack from a table', () => {
  const run = async (name: string) => {
    const store = memoryStore();
    const { report } = await pack(
      { name: 'table', source: { kind: 'table', path: path.join(folder.path, 'in', name) }, destination: store },
      { logger },
    );
    const captions = [];
    for await (const { record } of (await openDataset(store, 'manifest.json')).samples())
      captions.push(record.captions);
    return { report, captions };
  };

  it('reads CSV, and refuses paths that leave its folder', async () => {
    write('1.png', await picture(1));
    write('t.csv', 'filepath,title\n1.png,"one, quoted"\n../x.png,out\n/etc/passwd,out\nmissing.png,gone\n1.png,\n');
    const { report, captions } = await run('t.csv');
    expect(captions).toEqual([['one, quoted']]);
    expect(report.skippedByReason).toEqual({ 'image-without-caption': 1, 'missing-file': 1, 'traversal-name': 2 });
  });

  it('reads JSONL with several captions', async () => {
    write('1.png', await picture(1));
    write('t.jsonl', '{"image":"1.png","caption":["one","uno"]}\nnot json\n');
    const { report, captions } = await run('t.jsonl');
    expect(captions).toEqual([['one', 'uno']]);
    expect(report.skippedByReason).toEqual({ 'not-json': 1 });
  });

  it('names the columns it found where it needs others', async () => {
    write('t.csv', 'a,b\n1,2\n');
    await expect(run('t.csv')).rejects.toThrow(/no picture column: it has a, b/);
  });
});

describe('pack from existing tars', () => {
  it('indexes them in place, with the broken members reported', async () => {
    const store = memoryStore();
    const image = await picture(1);
    await store.put(
      'd/00001.tar',
      tarOf([
        ['0.png', image],
        ['0.txt', 'zero'],
        ['../e.png', image],
      ]),
    );
    await store.put(
      'd/00000.tar',
      tarOf([
        ['7.png', image],
        ['7.json', '{"caption":"seven"}'],
      ]),
    );
    await store.put('d/00002.tar', new TextEncoder().encode('not a tar'.repeat(100)));
    const { manifest, report } = await pack(
      { name: 'tars', source: { kind: 'tars' }, destination: store, prefix: 'd/' },
      { logger },
    );
    expect(manifest.shards.map((shard) => shard.key)).toEqual(['00000.tar', '00001.tar']);
    expect(report.skippedByReason).toEqual({ 'corrupt-header': 1, 'empty-tar': 1, 'traversal-name': 1 });
    const { record, shard } = await (await openDataset(store, 'd/manifest.json')).locate(1);
    const [offset, length] = record.files['png']!;
    expect((await store.get(shard.storeKey, { range: { offset, length } })).bytes).toEqual(new Uint8Array(image));
    expect(record.captions).toEqual(['zero']);
  });
});

describe('icon sets', () => {
  it('gives every visible drawing a caption from its name and leaves excluded sets out', () => {
    const samples = iconSetSamples(['noto', 'twemoji', 'emojione'], { side: 32, exclude: ['twemoji'] });
    expect(new Set(samples.map((sample) => sample.set))).toEqual(new Set(['noto', 'emojione']));
    expect(samples.length).toBeGreaterThan(4000);
    expect(
      samples.find((sample) => sample.set === 'noto' && sample.name === 'smiling-face-with-heart-eyes')?.caption,
    ).toBe('smiling face with heart eyes');
  });

  it('knows the category of a drawing under one name in every set, and makes it the label where asked', async () => {
    const samples = iconSetSamples(['noto', 'openmoji', 'emojione'], { side: 32 });
    const categoryIn = (set: string, name: string) =>
      samples.find((sample) => sample.set === set && sample.name === name)?.category;
    for (const set of ['noto', 'openmoji', 'emojione']) expect(categoryIn(set, 'ant')).toBe('Animals & Nature');
    // OpenMoji's own additions and EmojiOne's people belong to no group of Unicode.
    expect(categoryIn('openmoji', '3d-printer')).toBeUndefined();
    expect(categoryIn('emojione', 'man')).toBeUndefined();
    expect([...new Set(samples.flatMap(({ category }) => category ?? []))].sort()).toEqual([...ICON_CATEGORIES]);
    const store = memoryStore();
    const keep = ({ name }: { name: string }) => ['ant', 'banana', '3d-printer'].includes(name);
    await pack(
      {
        name: 'icons',
        source: { kind: 'icons', sets: ['openmoji'], side: 16, keep, labels: 'category' },
        destination: store,
      },
      { logger },
    );
    const dataset = await openDataset(store, 'manifest.json');
    const labels: unknown[] = [];
    for await (const { record } of dataset.samples()) labels.push([record.label, record.meta?.['category']]);
    expect(labels).toEqual([
      [undefined, undefined],
      ['Animals & Nature', 'Animals & Nature'],
      ['Food & Drink', 'Food & Drink'],
    ]);
  });

  it('names a set that is not installed', () => {
    expect(() => iconSetSamples(['no-such-set'], { side: 32 })).toThrow(/npm install @iconify-json\/no-such-set/);
    expect(() => iconSetSamples(['../x'], { side: 32 })).toThrow(/not the name of one/);
  });
});

describe('splitManifestUrl', () => {
  it('parts the store from the key', () => {
    expect(splitManifestUrl('s3://bucket/data/x/manifest.json')).toEqual({
      storeUrl: 's3://bucket/data/x',
      key: 'manifest.json',
    });
    expect(() => splitManifestUrl('manifest.json')).toThrow(/not the URL/);
  });
});
