import { beforeAll, describe, expect, it } from 'vitest';
import type { AugmentConfig } from '../../common/config/augment-config.ts';
import { runConfigSchema } from '../../common/config/run-config.ts';
import type { Dataset } from '../../worker/data/dataset.ts';
import { type Classes, checkLabels } from '../../worker/data/label-index.ts';
import { LaneLoader, type LaneLoaderOptions } from '../../worker/data/lane-loader.ts';
import { createPlan } from '../../worker/data/plan.ts';
import { ShardCache } from '../../worker/data/shard-cache.ts';
import { logger, makeDataset, memoryStore, picture, temporaryFolder } from '../support/datasets.ts';

const SIDE = 16;
const PIXELS = SIDE * SIDE * 3;
const GLOBAL_BATCH = 8;
const AUGMENT: AugmentConfig = runConfigSchema.parse({
  run: 'r',
  store: 'file:///unused',
  model: 'tiny',
  data: { manifest: 'file:///unused', augment: { scale: [0.2, 1], flip: 0.5, colorJitter: 0.4 } },
  train: { steps: 1, globalBatch: 2, lanes: 1 },
}).data.augment;

const store = memoryStore();
let dataset: Dataset;
/** Label of each sample by its id: every sixth has none, the others one of three. */
const labels = new Map<string, number>();

beforeAll(async () => {
  const samples = await Promise.all(
    Array.from({ length: 24 }, async (_, i) => {
      const image = await picture(i);
      return i % 6 === 5 ? { image, caption: `p${i}` } : { image, caption: `p${i}`, label: i % 3 };
    }),
  );
  dataset = await makeDataset(store, [samples.slice(0, 10), samples.slice(10)]);
  for await (const { sampleId, record } of dataset.samples())
    if (typeof record.label === 'number') labels.set(sampleId, record.label);
});

/** A step cut into so many lanes: every view of every sample in batch order, and what was replaced. */
async function loadStep(lanes: number, options: Partial<LaneLoaderOptions>, step = 0) {
  const folder = await temporaryFolder();
  const cache = new ShardCache({ dir: folder.path, bytesMax: 1e8 }, { store, logger });
  try {
    const plan = createPlan({
      manifestSha256: dataset.sha256,
      shardSampleCounts: dataset.shardSampleCounts,
      seed: 3,
      globalBatch: GLOBAL_BATCH,
      lanes,
      blockShards: 2,
    });
    const fixed = { plan, imageSide: SIDE, augment: AUGMENT, pixelsMax: 1e6, captions: false };
    const loader = new LaneLoader(
      { ...fixed, decoded: { side: 24, bytesMax: 1e8 }, ...options },
      { dataset, cache, tokenizer: null, logger },
    );
    const { pixelBytes, tokenCount, labelCount, seedCount } = loader.geometry;
    const views: Buffer[][] = [];
    const found = {
      ids: [] as string[],
      labels: [] as number[],
      seeds: [] as number[],
      replaced: [] as string[],
      tokenCount,
    };
    for (let lane = 0; lane < lanes; lane++) {
      const into = {
        pixels: new Uint8Array(pixelBytes),
        tokens: new Int32Array(tokenCount),
        labels: new Int32Array(labelCount),
        seeds: new Uint32Array(seedCount),
      };
      const loaded = await loader.load(step, lane, into);
      found.ids.push(...loaded.sampleIds);
      found.labels.push(...into.labels);
      found.seeds.push(...into.seeds);
      found.replaced.push(...loaded.replaced.map(({ reason }) => reason));
      const b = GLOBAL_BATCH / lanes;
      for (let view = 0; view * b * PIXELS < pixelBytes; view++) {
        const rows = views[view] ?? [];
        views[view] = rows;
        for (let row = 0; row < b; row++) {
          const begin = (view * b + row) * PIXELS;
          rows.push(Buffer.from(into.pixels.subarray(begin, begin + PIXELS)));
        }
      }
    }
    return { ...found, views };
  } finally {
    await cache.close();
    await folder.remove();
  }
}

describe('two views', () => {
  it.each([0, 24])('are the same however the step is cut into lanes (decoded side %i)', async (decodedSide) => {
    const options = { views: 2, decoded: { side: decodedSide, bytesMax: 1e8 } };
    const whole = await loadStep(1, options);
    expect(whole.views.map((rows) => rows.length)).toEqual([GLOBAL_BATCH, GLOBAL_BATCH]);
    expect(whole.tokenCount).toBe(0);
    for (const lanes of [2, 4, 8]) expect(await loadStep(lanes, options)).toEqual(whole);
  });

  it('of a sample differ, and the first is the one that a single view is', async () => {
    const two = await loadStep(2, { views: 2 });
    const one = await loadStep(2, {});
    expect(two.views[0]).toEqual(one.views[0]);
    two.views[0]!.forEach((first, row) => {
      expect(first.equals(two.views[1]![row]!)).toBe(false);
    });
  });
});

describe('no view', () => {
  it('makes no pictures: samples and seeds are there all the same', async () => {
    const [none, one] = [await loadStep(2, { views: 0 }), await loadStep(2, {})];
    expect(none.views).toEqual([]);
    expect({ ...none, views: one.views }).toEqual(one);
  });
});

describe('seeds', () => {
  it('are a sample’s own: another in every sample and step, the same however the step is cut', async () => {
    const [first, second] = [await loadStep(1, {}), await loadStep(4, {}, 1)];
    expect(first.seeds).toHaveLength(GLOBAL_BATCH);
    expect(new Set([...first.seeds, ...second.seeds]).size).toBe(2 * GLOBAL_BATCH);
    expect((await loadStep(8, {})).seeds).toEqual(first.seeds);
  });

  it('of a sample are others in another epoch', async () => {
    const seedsOf = new Map<string, number[]>();
    for (let step = 0; step < 8; step++) {
      const { ids, seeds } = await loadStep(2, { views: 0 }, step);
      for (const [i, id] of ids.entries()) seedsOf.set(id, [...(seedsOf.get(id) ?? []), seeds[i]!]);
    }
    const repeated = [...seedsOf.values()].filter((seeds) => seeds.length > 1);
    expect(repeated.length).toBeGreaterThan(4);
    for (const seeds of repeated) expect(new Set(seeds).size).toBe(seeds.length);
  });
});

describe('labels', () => {
  it('are those of the samples, and a sample without one is replaced by one that has', async () => {
    const steps = await Promise.all([0, 1, 2].map((step) => loadStep(2, { classes: 3 }, step)));
    const replaced = steps.flatMap((step) => step.replaced);
    expect(replaced).toEqual(['label-missing', 'label-missing', 'label-missing', 'label-missing']);
    for (const { ids, labels: found } of steps) expect(found).toEqual(ids.map((id) => labels.get(id)));
    expect(new Set(steps.flatMap((step) => step.labels))).toEqual(new Set([0, 1, 2]));
  });

  it('are looked up by name where the classes have names', async () => {
    const named = await loadStep(2, { classes: ['2', '0', '1'] });
    expect(named.labels).toEqual(named.ids.map((id) => [1, 2, 0][labels.get(id)!]));
  });

  it('outside the classes are refused like missing ones', async () => {
    const { replaced, ids } = await loadStep(2, { classes: 2 });
    expect(replaced).toContain('label-unknown');
    for (const id of ids) expect(labels.get(id)).toBeLessThan(2);
  });

  it('are looked for before a run starts', async () => {
    const check = (classes: Classes, of = dataset) => checkLabels({ name: 'x', dataset: of }, classes);
    await check(3);
    await expect(check(['cat', 'dog'])).rejects.toMatchObject({ code: 'CONFIG_INVALID' });
    const bare = await makeDataset(memoryStore('memory://bare'), [[{ image: await picture(1), caption: 'x' }]]);
    await expect(check(3, bare)).rejects.toThrow(/no labels/);
  });
});
