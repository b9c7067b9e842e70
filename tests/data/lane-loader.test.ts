import { beforeAll, describe, expect, it } from 'vitest';
import { type AugmentConfig, augmentSchema } from '../../common/config/augment-config.ts';
import type { Dataset } from '../../worker/data/dataset.ts';
import { evalBatches } from '../../worker/data/eval-loader.ts';
import { type LaneBuffers, LaneLoader, type LaneLoaderOptions } from '../../worker/data/lane-loader.ts';
import { createPlan } from '../../worker/data/plan.ts';
import { Prefetcher } from '../../worker/data/prefetcher.ts';
import { ShardCache } from '../../worker/data/shard-cache.ts';
import { logger, makeDataset, memoryStore, picture, temporaryFolder } from '../support/datasets.ts';

const augment: AugmentConfig = {
  scale: [0.5, 1],
  ratio: [0.75, 1.33],
  shift: 0.1,
  zoom: [0.9, 1.1],
  rotateDegrees: 5,
  colorJitter: 0.2,
  hueJitter: 0.05,
  grayscale: 0.1,
  flip: 0.5,
};
const tokenizer = {
  contextLength: 4,
  vocabSize: 256,
  encode: (text: string) => Int32Array.from({ length: 4 }, (_, i) => text.charCodeAt(i) || 0),
};
const side = 16;
const brokenCaption = 'broken';
let store: ReturnType<typeof memoryStore>;
let dataset: Dataset;

beforeAll(async () => {
  store = memoryStore();
  const sample = async (i: number) => {
    const image = await picture(i);
    return i % 9 === 4 ? { image: image.subarray(0, 200), caption: brokenCaption } : { image, caption: `p${i}` };
  };
  const samples = await Promise.all(Array.from({ length: 40 }, (_, i) => sample(i)));
  dataset = await makeDataset(store, [samples.slice(0, 15), samples.slice(15, 28), samples.slice(28)]);
});

async function withLoader<T>(
  change: Partial<LaneLoaderOptions> & { lanes?: number },
  use: (loader: LaneLoader, cache: ShardCache) => Promise<T>,
): Promise<T> {
  const folder = await temporaryFolder();
  const cache = new ShardCache({ dir: folder.path, bytesMax: 1e8 }, { store, logger });
  const { lanes = 2, ...options } = change;
  const plan = createPlan({
    manifestSha256: dataset.sha256,
    shardSampleCounts: dataset.shardSampleCounts,
    seed: 3,
    globalBatch: 8,
    lanes,
    blockShards: 2,
  });
  const loader = new LaneLoader(
    { plan, imageSide: side, augment, decoded: { side: 24, bytesMax: 1e8 }, pixelsMax: 1e6, ...options },
    { dataset, cache, tokenizer, logger } as never,
  );
  try {
    return await use(loader, cache);
  } finally {
    await cache.close();
    await folder.remove();
  }
}

function buffers(loader: LaneLoader): LaneBuffers {
  const { pixelBytes, tokenCount, labelCount, seedCount } = loader.geometry;
  return {
    pixels: new Uint8Array(new SharedArrayBuffer(pixelBytes)),
    tokens: new Int32Array(new SharedArrayBuffer(4 * tokenCount)),
    labels: new Int32Array(new SharedArrayBuffer(4 * labelCount)),
    seeds: new Uint32Array(new SharedArrayBuffer(4 * seedCount)),
  };
}

async function loadStep(
  loader: LaneLoader,
  step: number,
  order: readonly number[],
): Promise<{ pixels: number[]; tokens: number[]; ids: string[]; replaced: unknown[] }> {
  const lanes = new Map<number, Awaited<ReturnType<LaneLoader['load']>> & ReturnType<typeof buffers>>();
  for (const lane of order) {
    const into = buffers(loader);
    lanes.set(lane, { ...(await loader.load(step, lane, into)), ...into });
  }
  const sorted = [...lanes].sort(([a], [b]) => a - b).map(([, lane]) => lane);
  return {
    pixels: sorted.flatMap((lane) => [...lane.pixels]),
    tokens: sorted.flatMap((lane) => [...lane.tokens]),
    ids: sorted.flatMap((lane) => lane.sampleIds),
    replaced: sorted.flatMap((lane) => lane.replaced).sort((a, b) => (a.sampleId < b.sampleId ? -1 : 1)),
  };
}

describe('LaneLoader', () => {
  it.each([0, 24])(
    'gives the same step however many lanes it is cut into, in any order (decoded side %i)',
    async (decodedSide) => {
      const decoded = { side: decodedSide, bytesMax: 1e8 };
      const load = (lanes: number, order: number[]) =>
        withLoader({ lanes, decoded }, (loader) => loadStep(loader, 7, order));
      const expected = await load(1, [0]);
      expect(await load(4, [2, 0, 3, 1])).toEqual(expected);
      expect(await load(2, [1, 0])).toEqual(expected);
      expect(new Set(expected.pixels).size).toBeGreaterThan(50);
    },
  );

  it('follows a recipe, the same however many lanes, and not the same as without', async () => {
    const recipe = augmentSchema.parse({ recipe: 'moco-v2' });
    const load = (lanes: number, order: number[]) =>
      withLoader({ lanes, augment: recipe }, (loader) => loadStep(loader, 7, order));
    const expected = await load(1, [0]);
    expect(await load(4, [2, 0, 3, 1])).toEqual(expected);
    const without = await withLoader({}, (loader) => loadStep(loader, 7, [0, 1]));
    expect(without.ids).toEqual(expected.ids);
    expect(without.pixels).not.toEqual(expected.pixels);
  });

  it('gives the same pixels from a cold, a warm and a tiny decoded cache', async () => {
    const cold = await withLoader({}, (loader) => loadStep(loader, 11, [0, 1]));
    const warm = await withLoader({}, async (loader) => {
      for (let step = 0; step < 15; step++) await loadStep(loader, step, [0, 1]);
      return loadStep(loader, 11, [0, 1]);
    });
    const tiny = await withLoader({ decoded: { side: 24, bytesMax: 24 * 24 * 3 + 1 } }, async (loader) => {
      await loadStep(loader, 10, [0, 1]);
      return loadStep(loader, 11, [0, 1]);
    });
    expect(warm).toEqual(cold);
    expect(tiny).toEqual(cold);
  });

  it('replaces broken samples by whole ones, the same whatever came before, and reports them', async () => {
    const epoch = await withLoader({}, async (loader) => {
      const steps = [];
      for (let step = 0; step < 5; step++) steps.push(await loadStep(loader, step, [0, 1]));
      return steps;
    });
    const replaced = epoch.flatMap(
      (step) => step.replaced as { sampleId: string; reason: string; replacedBy: string }[],
    );
    expect(replaced.length).toBe(4); // indices 4, 13, 22, 31: all 40 samples fill 5 steps of 8
    for (const one of replaced)
      expect(one).toMatchObject({ reason: 'undecodable', replacedBy: expect.stringMatching(/\.tar\/\d+$/) });
    const broken = [...brokenCaption.slice(0, 4)].map((letter) => letter.charCodeAt(0));
    for (const step of epoch) {
      for (let i = 0; i < step.tokens.length; i += 4) expect(step.tokens.slice(i, i + 4)).not.toEqual(broken);
    }
    for (const [step, expected] of epoch.entries())
      expect(await withLoader({ lanes: 4 }, (loader) => loadStep(loader, step, [3, 2, 1, 0]))).toEqual(expected);
  });

  it('finds a picture that is cut off broken or whole whatever it was found before', async () => {
    const cut = (await picture(77, { width: 96, height: 96, format: 'jpeg' })).subarray(0, 2500);
    const whole = await Promise.all([1, 2, 3].map((i) => picture(i)));
    const own = memoryStore('memory://cut');
    const images = [cut, ...whole].map((image, i) => ({ image, caption: `p${i}` }));
    const few = await makeDataset(own, [images]);
    const replacedAt = async (steps: readonly number[]) => {
      const folder = await temporaryFolder();
      const cache = new ShardCache({ dir: folder.path, bytesMax: 1e8 }, { store: own, logger });
      const { shardSampleCounts } = few;
      const order = {
        manifestSha256: few.sha256,
        shardSampleCounts,
        seed: 3,
        globalBatch: 4,
        lanes: 1,
        blockShards: 1,
      };
      const small = { ...augment, scale: [0.05, 0.4] as [number, number] };
      const loader = new LaneLoader(
        { plan: createPlan(order), imageSide: side, augment: small, decoded: { side: 0, bytesMax: 1 }, pixelsMax: 1e6 },
        { dataset: few, cache, tokenizer, logger } as never,
      );
      const found = [];
      for (const step of steps) found.push((await loader.load(step, 0, buffers(loader))).replaced.length);
      await cache.close();
      await folder.remove();
      return found;
    };
    const walked = await replacedAt([...Array(24).keys()]);
    expect(new Set(walked)).toEqual(new Set([0, 1]));
    for (const [step, replaced] of walked.entries()) expect(await replacedAt([step])).toEqual([replaced]);
  });

  it('fails with the name of a shard whose bytes do not verify', async () => {
    const key = dataset.shards[1]!.storeKey;
    const { bytes } = await store.get(key);
    const flipped = Uint8Array.from(bytes);
    flipped[700]! ^= 1;
    await store.put(key, flipped);
    try {
      const failure = withLoader({}, async (loader) => {
        for (let step = 0; step < 5; step++) await loadStep(loader, step, [0, 1]);
      });
      await expect(failure).rejects.toMatchObject({ code: 'DATA_CORRUPT', fields: { shard: dataset.shards[1]!.key } });
    } finally {
      await store.put(key, bytes);
    }
  });

  it('refuses buffers of the wrong size and stops at the signal', async () => {
    await withLoader({}, async (loader) => {
      const wrong = { ...buffers(loader), tokens: new Int32Array(3) };
      await expect(loader.load(0, 0, wrong)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
      await expect(loader.load(0, 0, buffers(loader), AbortSignal.abort())).rejects.toMatchObject({
        code: 'CANCELLED',
      });
    });
  });
});

describe('evalBatches', () => {
  it('shows every whole sample once, in order, and names the broken ones', async () => {
    await withLoader({}, async (_, cache) => {
      const batches = [];
      for await (const batch of evalBatches({ imageSide: side, batch: 7, pixelsMax: 1e6 }, { dataset, cache }))
        batches.push(batch);
      const indices = batches.flatMap((batch) => batch.samples.map((sample) => sample.sampleIndex));
      expect(indices).toEqual(Array.from({ length: 40 }, (_, i) => i).filter((i) => i % 9 !== 4));
      expect(batches.flatMap((batch) => batch.broken).length).toBe(4);
      for (const batch of batches) expect(batch.pixels.length).toBe(batch.samples.length * side * side * 3);
    });
  });
});

describe('Prefetcher', () => {
  it('hands out lanes in order with the loader’s own pixels, through a seek, in few slots', async () => {
    await withLoader({}, async (loader) => {
      const prefetcher = new Prefetcher(
        { slots: [buffers(loader), buffers(loader), buffers(loader)] },
        { loader, logger },
      );
      const check = async (step: number, lane: number) => {
        const taken = await prefetcher.take(step, lane, AbortSignal.timeout(20_000));
        const expected = buffers(loader);
        const loaded = await loader.load(step, lane, expected);
        expect(taken).toMatchObject({ step, lane, sampleIds: loaded.sampleIds });
        expect(taken.buffers).toEqual(expected);
        prefetcher.release(taken);
      };
      prefetcher.seek({ step: 0, lanes: [0, 1] });
      for (let step = 0; step < 4; step++) for (const lane of [0, 1]) await check(step, lane);
      prefetcher.seek({ step: 2, lanes: [1] });
      for (let step = 2; step < 9; step++) await check(step, 1);
      for (let i = 0; i < 20; i++) prefetcher.seek({ step: i, lanes: [0, 1] });
      for (const lane of [0, 1]) await check(19, lane);
      await prefetcher.close();
    });
  });

  it('ends a waiting take at a seek, refuses what is not ahead, and passes a failure on', async () => {
    const slots = [0, 1].map(() => ({
      pixels: new Uint8Array(1),
      tokens: new Int32Array(1),
      labels: new Int32Array(0),
      seeds: new Uint32Array(0),
    }));
    const loader = {
      load: (step: number, lane: number, _into: unknown, signal?: AbortSignal) =>
        new Promise<never>((_, reject) => {
          if (step === 5) reject(new Error(`lane ${lane} failed`));
          signal?.addEventListener('abort', () => reject(signal.reason));
        }),
    };
    const prefetcher = new Prefetcher({ slots }, { loader: loader as never, logger });
    prefetcher.seek({ step: 0, lanes: [0, 1] });
    const waiting = prefetcher.take(0, 1);
    const far = prefetcher.take(1, 0);
    prefetcher.seek({ step: 5, lanes: [0] });
    await expect(waiting).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(far).rejects.toMatchObject({ code: 'ABORTED' });
    await expect(prefetcher.take(4, 0)).rejects.toMatchObject({ code: 'INVALID_ARGUMENT' });
    await expect(prefetcher.take(5, 0)).rejects.toThrow('lane 0 failed');
    expect(() => prefetcher.seek({ step: 0, lanes: [0, 1, 2] })).toThrow(/2 slots/);
    await prefetcher.close();
  });
});
