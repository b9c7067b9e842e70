import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { runConfigSchema } from '../../common/config/run-config.ts';
import type { MemoryStore } from '../../common/objectstore/memory-store.ts';
import { LaneLoader } from '../../worker/data/lane-loader.ts';
import { ShardCache } from '../../worker/data/shard-cache.ts';
import { openTrainingData, shardReaderFor, type TrainingData } from '../../worker/data/training-data.ts';
import { logger, makeDataset, memoryStore, picture, temporaryFolder } from '../support/datasets.ts';

const SIDE = 16;
const stores: Record<string, MemoryStore> = {};
const tokenizer = {
  contextLength: 4,
  vocabSize: 256,
  encode: (text: string) => Int32Array.from({ length: 4 }, (_, i) => text.charCodeAt(i) || 0),
};
let folder: Awaited<ReturnType<typeof temporaryFolder>>;

/** Dataset `name` of `count` samples in two shards; every third picture is cut off where so asked. */
async function put(name: string, count: number, broken: boolean): Promise<void> {
  const samples = await Promise.all(
    Array.from({ length: count }, async (_, i) => {
      const image = await picture(1000 * name.charCodeAt(0) + i);
      return { image: broken && i % 3 === 1 ? image.subarray(0, 200) : image, caption: `${name}${i}` };
    }),
  );
  const store = memoryStore(`memory://${name}`);
  await makeDataset(store, [samples.slice(0, 5), samples.slice(5)]);
  stores[name] = store;
}

beforeAll(async () => {
  folder = await temporaryFolder();
  await put('a', 30, true);
  await put('b', 12, false);
});
afterAll(() => folder.remove());

function config(data: object = {}) {
  return runConfigSchema.parse({
    run: 'mix',
    seed: 5,
    store: 'file:///unused',
    model: 'tiny',
    data: {
      mixture: [
        { manifest: 'memory://a/manifest.json', weight: 3, name: 'first' },
        { manifest: 'memory://b/manifest.json', weight: 1, name: 'second' },
      ],
      augment: { scale: [0.5, 1] },
      ...data,
    },
    train: { steps: 10, globalBatch: 8, lanes: 2 },
  });
}

const open = (data: object = {}) =>
  openTrainingData(config(data), async (url) => stores[url.slice('memory://'.length)]!);

async function consumed(training: TrainingData, steps: readonly number[]) {
  const { data } = config();
  const caches: ShardCache[] = [];
  const cache = shardReaderFor(training, ({ store }) => {
    const one = new ShardCache({ dir: folder.path, bytesMax: 1e8 }, { store, logger });
    caches.push(one);
    return one;
  });
  const loader = new LaneLoader(
    {
      plan: training.plan,
      imageSide: SIDE,
      augment: data.augment,
      decoded: { side: 24, bytesMax: 1e7 },
      pixelsMax: 1e6,
    },
    { dataset: training.samples, cache, tokenizer: tokenizer as never, logger },
  );
  const lanes = [];
  try {
    for (const step of steps) {
      for (const lane of [0, 1]) {
        const { pixelBytes, tokenCount, seedCount } = loader.geometry;
        const into = {
          pixels: new Uint8Array(pixelBytes),
          tokens: new Int32Array(tokenCount),
          labels: new Int32Array(0),
          seeds: new Uint32Array(seedCount),
        };
        lanes.push({ ...(await loader.load(step, lane, into)), ...into });
      }
    }
  } finally {
    for (const one of caches) await one.close();
  }
  return lanes;
}

describe('a mixture in the lane loader', () => {
  it('reads each dataset from its own store, names samples by dataset, and counts them', async () => {
    const lanes = await consumed(await open(), [0, 1, 2, 3]);
    const ids = lanes.flatMap(({ sampleIds }) => sampleIds);
    for (const id of ids) expect(id).toMatch(/^(first|second):[01]\.tar\/\d+$/);
    expect(ids.filter((id) => id.startsWith('second:'))).toHaveLength(8);
    for (const { samplesByDataset } of lanes) expect(samplesByDataset).toEqual({ first: 3, second: 1 });
    // A caption says which dataset it is from: ids and contents belong together.
    for (const { sampleIds, tokens } of lanes) {
      for (const [row, id] of sampleIds.entries())
        expect(String.fromCharCode(tokens[4 * row]!)).toBe(id.startsWith('first') ? 'a' : 'b');
    }
  });

  it('replaces a broken sample by one of the same dataset', async () => {
    const lanes = await consumed(await open(), [0, 1, 2, 3, 4]);
    const replaced = lanes.flatMap((lane) => lane.replaced);
    expect(replaced.length).toBeGreaterThan(5);
    for (const { sampleId, replacedBy } of replaced) {
      expect(sampleId).toMatch(/^first:/);
      expect(replacedBy).toMatch(/^first:/);
    }
  });

  it('gives the same lanes whatever was loaded before, and other views and seeds when a sample comes again', async () => {
    const walked = await consumed(await open(), [...Array(14).keys()]);
    expect(await consumed(await open(), [13])).toEqual(walked.slice(26));
    const showings = walked.flatMap(({ sampleIds, pixels, seeds }) =>
      sampleIds.map((id, row) => ({
        id,
        seed: seeds[row]!,
        pixels: Buffer.from(pixels.slice(row * SIDE * SIDE * 3, (row + 1) * SIDE * SIDE * 3)),
      })),
    );
    const again = showings.filter(({ id }) => id === 'second:0.tar/0');
    expect(again.length).toBeGreaterThanOrEqual(2);
    expect(again[0]!.pixels.equals(again[1]!.pixels)).toBe(false);
    expect(again[0]!.seed).not.toBe(again[1]!.seed);
  });

  it('has an identity of its manifests, weights and way of drawing', async () => {
    const sha256 = async (data?: object) => (await open(data)).samples.sha256;
    const mixture = (weights: number[], names: string[]) => ({
      mixture: weights.map((weight, i) => ({ manifest: `memory://${'ab'[i]}/manifest.json`, weight, name: names[i] })),
    });
    expect(await sha256(mixture([3, 1], ['x', 'y']))).toBe(await sha256());
    expect(await sha256(mixture([3, 2], ['x', 'y']))).not.toBe(await sha256());
    expect(await sha256({ replacement: true })).not.toBe(await sha256());
    const alone = await open({ mixture: undefined, manifest: 'memory://a/manifest.json' });
    expect(alone.samples.sha256).toBe(alone.parts[0]!.dataset.sha256);
  });

  it('refuses doubled datasets and names', async () => {
    const mixture = (entries: object[]) => open({ mixture: entries.map((entry) => ({ weight: 1, ...entry })) });
    const a = { manifest: 'memory://a/manifest.json' };
    await expect(mixture([a, { ...a, name: 'again' }])).rejects.toThrow(/data\.mixture\.1 is the same dataset as test/);
    await expect(mixture([a, { manifest: 'memory://b/manifest.json' }])).rejects.toThrow(
      /has the name of another: test/,
    );
  });
});

describe('data of run.yaml', () => {
  const problems = (data: object) => {
    const { run, store, model, train } = config();
    const parsed = runConfigSchema.safeParse({ run, store, model, data, train: { ...train } });
    return (parsed.error?.issues ?? []).map((issue) => `${issue.path.join('.')} ${issue.message}`).join('\n');
  };

  it('names one dataset or a mixture, not both and not neither', () => {
    const entry = { manifest: 'memory://a/manifest.json', weight: 1 };
    expect(problems({})).toMatch(/data\.manifest is missing; give it or data\.mixture/);
    expect(problems({ manifest: 'x', mixture: [entry] })).toMatch(/data\.mixture cannot stand beside data\.manifest/);
    expect(
      problems({
        mixture: [
          { ...entry, name: 'a' },
          { ...entry, name: 'a' },
        ],
      }),
    ).toMatch(/mixture\.1\.name/);
    expect(problems({ mixture: [{ ...entry, weight: 0 }] })).toMatch(/mixture\.0\.weight/);
    expect(problems({ manifest: 'x', captions: { choose: 'first', weights: { txt: 1 } } })).toMatch(/choose is first/);
    expect(problems({ manifest: 'x', captions: { weights: { txt: 0 } } })).toMatch(/odds above 0/);
    expect(problems({ mixture: [entry] })).toBe('');
  });
});
