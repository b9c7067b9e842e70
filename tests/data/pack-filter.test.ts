import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { ObjectStore } from '../../common/objectstore/object-store.ts';
import { checkCaptions } from '../../worker/data/check-captions.ts';
import { openDataset } from '../../worker/data/dataset.ts';
import { checkLabels, LabelIndex } from '../../worker/data/label-index.ts';
import { type PackSource, pack } from '../../worker/data/pack/pack.ts';
import { logger, memoryStore, picture, tarOf, temporaryFolder } from '../support/datasets.ts';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let store: ReturnType<typeof memoryStore>;

beforeEach(async () => {
  folder = await temporaryFolder();
  store = memoryStore();
});
afterEach(() => folder.remove());

const run = (source: PackSource, where?: string, name = 'x') =>
  pack({ name, source, destination: store, ...(where === undefined ? {} : { where }) }, { logger });

async function keysOf(manifestKey: string, of: ObjectStore = store) {
  const dataset = await openDataset(of, manifestKey);
  const keys = [];
  for await (const { record, shard } of dataset.samples()) keys.push(`${shard.key}:${record.key}`);
  return keys;
}

/** Two tars of four samples as img2dataset writes them, and a parquet file beside the second alone. */
async function putTars(): Promise<void> {
  const image = await picture(1);
  for (const tar of [0, 1]) {
    const members = [0, 1, 2, 3].flatMap((i) => {
      const sidecar = {
        caption: `c${i}`,
        alt: [`alt ${i}`, `c${i}`],
        width: 100 * (i + 1),
        LANGUAGE: i < 3 ? 'en' : 'de',
      };
      return [
        [`${tar}${i}.png`, image],
        [`${tar}${i}.txt`, `c${i}`],
        [`${tar}${i}.json`, JSON.stringify(sidecar)],
      ] as [string, Uint8Array | string][];
    });
    await store.put(`0000${tar}.tar`, tarOf(members));
    const similarity = [0.1, 0.35, 0.4, Number.NaN];
    const parquet = parquetWriteBuffer({
      columnData: [
        { name: 'key', data: [0, 1, 2, 3].map((i) => `${tar}${i}`), type: 'STRING' },
        { name: 'similarity', data: similarity, type: 'DOUBLE' },
        { name: 'hash', data: [1n, 2n, 3n, 4n], type: 'INT64' },
      ],
    });
    await store.put(`0000${tar}.parquet`, new Uint8Array(parquet));
  }
}

describe('a filter over tars', () => {
  beforeEach(putTars);

  it('reads the json and the parquet beside them, and reports by clause', async () => {
    const { manifest, report } = await run({ kind: 'tars' }, 'width >= 200 and similarity > 0.3 and LANGUAGE == "en"');
    expect(report.filter).toEqual({
      where: 'width >= 200 and similarity > 0.3 and LANGUAGE == "en"',
      kept: 4,
      dropped: 4,
      clauses: [
        { clause: 'width >= 200', dropped: 2, missing: 0 },
        { clause: 'similarity > 0.3', dropped: 2, missing: 2 },
        { clause: 'LANGUAGE == "en"', dropped: 0, missing: 0 },
      ],
    });
    expect(report.packed).toBe(4);
    expect(manifest.filter).toEqual({ where: report.filter!.where });
    expect(await keysOf('manifest.json')).toEqual(['00000.tar:01', '00000.tar:02', '00001.tar:11', '00001.tar:12']);
  });

  it('makes a new manifest over the shards of a packed dataset, and leaves that as it was', async () => {
    const whole = await run({ kind: 'tars' });
    const before = (await store.get('manifest.json')).bytes;
    const tars = new Set<string>();
    for await (const { key } of store.list('')) if (key.endsWith('.tar')) tars.add(key);
    const filtered = await run({ kind: 'manifest', key: 'manifest.json' }, 'hash >= 3 and width <= 300', 'few');
    expect(await keysOf(filtered.manifestKey)).toEqual(['00000.tar:02', '00001.tar:12']);
    expect(filtered.manifest).toMatchObject({
      name: 'few',
      sampleCount: 2,
      filter: { where: 'hash >= 3 and width <= 300', ofManifestSha256: whole.manifestSha256 },
    });
    expect(filtered.manifestSha256).not.toBe(whole.manifestSha256);
    expect((await store.get('manifest.json')).bytes).toEqual(before);
    for await (const { key } of store.list('')) if (key.endsWith('.tar')) expect(tars.has(key)).toBe(true);
    // The same again is the same bytes, whoever asks.
    const again = await run({ kind: 'manifest', key: 'manifest.json' }, 'hash >= 3 and width <= 300', 'few');
    expect(again.manifestSha256).toBe(filtered.manifestSha256);
    await expect(run({ kind: 'manifest', key: 'manifest.json' })).rejects.toThrow(/packed already; say which samples/);
  });

  it('drops shards that are left empty', async () => {
    await run({ kind: 'tars' });
    const { manifest } = await run({ kind: 'manifest', key: 'manifest.json' }, 'startsWith(key, "1")');
    expect(manifest.shards.map(({ key }) => key)).toEqual(['00001.tar']);
  });

  it('refuses an unknown column, a wrong kind and an empty result, and writes no manifest', async () => {
    await expect(run({ kind: 'tars' }, 'wdith > 3')).rejects.toThrow(
      /no sample has a column wdith; there are LANGUAGE, alt/,
    );
    await expect(run({ kind: 'tars' }, 'LANGUAGE > 3')).rejects.toThrow(/column LANGUAGE, sample 0000[01]\.tar\/\d+/);
    await expect(run({ kind: 'tars' }, 'width > 3000')).rejects.toThrow(/none of 8 samples: 8 by width > 3000/);
    expect(await store.head('manifest.json')).toBeNull();
  });

  it('names a file beside a tar that is not parquet', async () => {
    await store.put('00001.parquet', new TextEncoder().encode('not parquet at all, but long enough'));
    await expect(run({ kind: 'tars' }, 'similarity > 0.3')).rejects.toMatchObject({
      code: 'DATA_CORRUPT',
      fields: { key: '00001.parquet' },
    });
  });

  it('keeps columns in the index where asked, and captions by their sources', async () => {
    const reading = { metaKeys: ['width', 'LANGUAGE', 'missing'], captionKeys: ['txt', 'alt', 'none'] };
    await run({ kind: 'tars', reading });
    const { record } = await (await openDataset(store, 'manifest.json')).locate(1);
    expect(record).toMatchObject({
      meta: { width: 200, LANGUAGE: 'en' },
      captions: ['c1', 'alt 1'],
      captionSources: ['txt', 'alt'],
    });
    for (const key of ['00000.parquet', '00001.parquet']) await store.delete(key);
    const { report } = await run({ kind: 'manifest', key: 'manifest.json' }, 'width == 200 and LANGUAGE == "en"');
    expect(report.filter?.kept).toBe(2);
  });

  it('takes pictures without captions where asked', async () => {
    await store.put(
      '00002.tar',
      tarOf([
        ['20.png', await picture(2)],
        ['20.cls', '4'],
      ]),
    );
    const { manifest } = await run({ kind: 'tars', reading: { captions: 'none' } });
    expect(manifest.sampleCount).toBe(9);
    const { record } = await (await openDataset(store, 'manifest.json')).locate(8);
    expect(record).toMatchObject({ captions: [], label: 4 });
  });
});

describe('a filter over a table', () => {
  it('reads numbers out of a CSV, and the size of the picture where the table does not say it', async () => {
    for (const i of [1, 2, 3]) writeFileSync(path.join(folder.path, `${i}.png`), await picture(i, { width: 20 * i }));
    writeFileSync(path.join(folder.path, 't.csv'), 'filepath,title,score\n1.png,one,0.5\n2.png,two,2\n3.png,three,\n');
    const source = { kind: 'table', path: path.join(folder.path, 't.csv'), metaKeys: ['score'] } as const;
    const { report } = await run(source, 'score >= 0.5 and width > 20');
    expect(report.filter?.clauses.map(({ dropped, missing }) => [dropped, missing])).toEqual([
      [1, 1],
      [1, 0],
    ]);
    const { record } = await (await openDataset(store, 'manifest.json')).locate(0);
    expect(record).toMatchObject({ captions: ['two'], meta: { path: '2.png', score: 2 } });
    await expect(run(source, 'scroe > 1')).rejects.toThrow(/no sample has a column scroe; .*score/);
  });

  it('keeps several columns of captions with their names', async () => {
    writeFileSync(path.join(folder.path, '1.png'), await picture(1));
    writeFileSync(
      path.join(folder.path, 't.jsonl'),
      '{"image":"1.png","human":"a cat","llava":["a black cat","a cat"]}\n',
    );
    await run({ kind: 'table', path: path.join(folder.path, 't.jsonl'), captionKeys: ['human', 'llava'] });
    const { record } = await (await openDataset(store, 'manifest.json')).locate(0);
    expect(record).toMatchObject({ captions: ['a cat', 'a black cat'], captionSources: ['human', 'llava'] });
    const wrong = { kind: 'table', path: path.join(folder.path, 't.jsonl'), captionKeys: ['humna'] } as const;
    await expect(run(wrong)).rejects.toThrow(/no caption column.*human, llava/);
  });
});

describe('pictures without captions', () => {
  beforeEach(async () => {
    for (const [i, name] of ['dog/1.png', 'cat/2.png', 'cat/deep/3.png', '4.png'].entries()) {
      mkdirSync(path.dirname(path.join(folder.path, name)), { recursive: true });
      writeFileSync(path.join(folder.path, name), await picture(i));
    }
  });

  it('are packed with the outermost folder as label, and the classes in order', async () => {
    const { manifest } = await run({ kind: 'folder', path: folder.path, captions: 'none', labels: 'folder' });
    expect(manifest).toMatchObject({ sampleCount: 4, classes: ['cat', 'dog'] });
    const dataset = await openDataset(store, 'manifest.json');
    const labels = [];
    for await (const { record } of dataset.samples()) {
      expect(record.captions).toEqual([]);
      expect(Object.keys(record.files).sort()).toEqual(['json', 'png']);
      labels.push(new LabelIndex(2, dataset.classes).indexOf(record));
    }
    expect(labels).toEqual(['label-missing', 0, 0, 1]);
    const part = { name: 'x', dataset };
    await expect(checkLabels(part, 3)).rejects.toThrow(/loss.classes: it must be 2, as many as the manifest/);
    await expect(
      checkCaptions(part, { objective: 'clip', data: { captions: { choose: 'random' } } } as never),
    ).rejects.toThrow(/clip learns from captions, dataset x has none/);
  });

  it('are named where captions are wanted and there are none', async () => {
    const bare = path.join(folder.path, 'bare');
    mkdirSync(bare);
    writeFileSync(path.join(bare, '1.png'), await picture(1));
    await expect(run({ kind: 'folder', path: bare })).rejects.toThrow(
      /"image-without-caption":1.*--captions none packs pictures alone/,
    );
  });
});
