import sharp, { type Sharp } from 'sharp';
import type { Dataset, LocatedSample } from '../../worker/data/dataset.ts';
import { readImageBytes } from '../../worker/data/sample-source.ts';
import type { ShardCache } from '../../worker/data/shard-cache.ts';

const TILE_SIDE = 64;

/** A small picture for a page, as a data URI; empty where there is no such sample. */
export async function thumbnail(
  located: LocatedSample | undefined,
  { cache, signal }: { readonly cache: ShardCache; readonly signal: AbortSignal },
): Promise<string> {
  if (located === undefined) return '';
  const bytes = await readImageBytes(cache, located, signal);
  return tileUrl(sharp(bytes));
}

/** A picture made small, as a data URI. */
export async function tileUrl(image: Sharp): Promise<string> {
  const png = await image.resize(TILE_SIDE, TILE_SIDE, { fit: 'inside' }).png().toBuffer();
  return `data:image/png;base64,${png.toString('base64')}`;
}

/** Every sample of a dataset by its id. */
export async function locatedByKey(dataset: Dataset, signal: AbortSignal): Promise<Map<string, LocatedSample>> {
  const located = new Map<string, LocatedSample>();
  for await (const sample of dataset.samples(signal)) located.set(sample.sampleId, sample);
  return located;
}
