import { prepareDataset } from '../../../cli/demo/dataset.ts';
import { systemClock } from '../../../common/clock.ts';
import { silentLogger } from '../../../common/log.ts';
import { openObjectStore } from '../../../common/objectstore/open.ts';
import { evalTransform } from '../../../models/preprocess/eval-transform.ts';
import { type Dataset, type LocatedSample, openDataset, splitManifestUrl } from '../../../worker/data/dataset.ts';
import { ICON_CATEGORIES } from '../../../worker/data/pack/icon-source.ts';
import type { SampleSet } from '../../../worker/data/sample-set.ts';
import { readImageBytes } from '../../../worker/data/sample-source.ts';
import { ShardCache } from '../../../worker/data/shard-cache.ts';

/** The style no method sees before it is judged: the demo's. */
export const HELD_OUT = 'fluent-emoji-flat';
/** Of any drawing. */
export const PIXELS_MAX = 1_000_000;
const CACHE_BYTES_MAX = 2 ** 30;

/** The demo's pictures, with their categories as labels. */
export interface IconPictures {
  readonly manifest: string;
  readonly tokenizer: string;
  readonly vocabSize: number;
  /** Names of the held-out drawings, one of each: the classes of zero-shot. */
  readonly names: readonly string[];
  readonly train: Dataset;
  readonly test: Dataset;
  readonly cache: { readonly train: ShardCache; readonly test: ShardCache };
  close(): Promise<void>;
}

/** Rendered once per folder and held-out style. Training styles and held-out style are apart, as in the demo. */
export async function openIconPictures(workDir: string, heldOut: string = HELD_OUT): Promise<IconPictures> {
  const signal = new AbortController().signal;
  const onProgress = (done: number, total: number) => {
    if (done % 500 === 0) process.stderr.write(`\rrendering ${done} of ${total} icons`);
  };
  const modules = { logger: silentLogger, clock: systemClock, signal, onProgress };
  const data = await prepareDataset({ workDir, heldOut }, modules);
  const open = async (manifest: string) => {
    const { storeUrl, key } = splitManifestUrl(manifest);
    const store = openObjectStore(storeUrl);
    const dir = `${workDir}/cache`;
    const cache = new ShardCache({ dir, bytesMax: CACHE_BYTES_MAX }, { store, logger: silentLogger });
    return { dataset: await openDataset(store, key), cache, store };
  };
  const [train, test] = [await open(data.trainManifest), await open(data.testManifest)];
  return {
    manifest: data.trainManifest,
    tokenizer: data.tokenizer,
    vocabSize: data.vocabSize,
    names: data.classNames,
    train: train.dataset,
    test: test.dataset,
    cache: { train: train.cache, test: test.cache },
    close: async () => {
      for (const { cache, store } of [train, test]) {
        await cache.close();
        await store.close();
      }
    },
  };
}

/** Category of a drawing as a number; −1 where its set names none. */
export function categoryOf({ record }: LocatedSample): number {
  const names: readonly string[] = ICON_CATEGORIES;
  return names.indexOf(String(record.meta?.['category']));
}

/** The dataset with its categories as labels, for the objectives that learn from them. */
export function withCategories(dataset: Dataset): SampleSet {
  return {
    sha256: dataset.sha256,
    sampleCount: dataset.sampleCount,
    classes: ICON_CATEGORIES,
    rangeOf: (sampleIndex) => dataset.rangeOf(sampleIndex),
    locate: async (sampleIndex, signal) => {
      const located = await dataset.locate(sampleIndex, signal);
      const category = categoryOf(located);
      if (category < 0) return located;
      return { ...located, record: { ...located.record, label: ICON_CATEGORIES[category]! } };
    },
  };
}

/** Pictures to judge by, after the evaluation transform: uint8 [count, side, side, 3]. */
export interface JudgedPictures {
  readonly pixels: Uint8Array;
  readonly categories: Int32Array;
  readonly captions: readonly string[];
  readonly count: number;
}

export async function judgedPictures(dataset: Dataset, cache: ShardCache, side: number): Promise<JudgedPictures> {
  const bytes = side * side * 3;
  const count = dataset.sampleCount;
  const pixels = new Uint8Array(count * bytes);
  const categories = new Int32Array(count);
  const captions: string[] = [];
  for (let i = 0; i < count; i++) {
    const located = await dataset.locate(i);
    const picture = await evalTransform(await readImageBytes(cache, located), side, { pixelsMax: PIXELS_MAX });
    pixels.set(picture, i * bytes);
    categories[i] = categoryOf(located);
    captions.push(located.record.captions[0] ?? '');
  }
  return { pixels, categories, captions, count };
}
