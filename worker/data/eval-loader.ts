import { CoveyError, throwIfAborted } from '../../common/errors.ts';
import { evalTransform } from '../../models/preprocess/eval-transform.ts';
import type { Dataset, LocatedSample } from './dataset.ts';
import { mapInOrder } from './map-in-order.ts';
import { readImageBytes } from './sample-source.ts';
import type { ShardCache } from './shard-cache.ts';

export interface EvalLoaderOptions {
  readonly imageSide: number;
  readonly batch: number;
  readonly pixelsMax: number;
  /** Pictures in the making at once. Default 4. */
  readonly concurrency?: number;
}

export interface EvalBatch {
  /** uint8 RGB, [samples.length, imageSide, imageSide, 3]; the last batch may be smaller. Not reused. */
  readonly pixels: Uint8Array;
  /** With captions, label and meta in `record`. */
  readonly samples: readonly LocatedSample[];
  /** Broken samples met since the last batch; left out. */
  readonly broken: readonly { readonly sampleId: string; readonly reason: string }[];
}

/**
 * Every sample of a dataset once, in order, through the evaluation transform. Broken pictures are left out and named; a shard
 * that cannot be read is an error.
 */
export async function* evalBatches(
  options: EvalLoaderOptions,
  modules: { readonly dataset: Dataset; readonly cache: ShardCache },
  signal?: AbortSignal,
): AsyncGenerator<EvalBatch> {
  const imageBytes = options.imageSide ** 2 * 3;
  let pictures: Uint8Array[] = [];
  let samples: LocatedSample[] = [];
  let broken: { sampleId: string; reason: string }[] = [];
  const take = (): EvalBatch => {
    const pixels = new Uint8Array(pictures.length * imageBytes);
    pictures.forEach((picture, i) => {
      pixels.set(picture, i * imageBytes);
    });
    const batch = { pixels, samples, broken };
    pictures = [];
    samples = [];
    broken = [];
    return batch;
  };
  const load = async (located: LocatedSample) => ({
    located,
    outcome: await evalPicture(options, modules.cache, located, signal),
  });
  for await (const { located, outcome } of mapInOrder(
    modules.dataset.samples(signal),
    options.concurrency ?? 4,
    load,
  )) {
    throwIfAborted(signal);
    if (typeof outcome === 'string') {
      broken.push({ sampleId: located.sampleId, reason: outcome });
    } else {
      pictures.push(outcome);
      samples.push(located);
    }
    if (pictures.length === options.batch) yield take();
  }
  if (pictures.length > 0 || broken.length > 0) yield take();
}

/** The pixels, or why the sample is broken. */
async function evalPicture(
  options: EvalLoaderOptions,
  cache: ShardCache,
  located: LocatedSample,
  signal: AbortSignal | undefined,
): Promise<Uint8Array | string> {
  const bytes = await readImageBytes(cache, located, signal);
  try {
    return await evalTransform(bytes, options.imageSide, options);
  } catch (thrown) {
    if (CoveyError.is(thrown, 'DATA_CORRUPT') && typeof thrown.fields['reason'] === 'string')
      return thrown.fields['reason'];
    throw thrown;
  }
}
