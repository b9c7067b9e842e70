import { PIXELS_MAX_DEFAULT } from '../../common/config/pixels-max.ts';
import { CoveyError } from '../../common/errors.ts';
import { openDataset, splitManifestUrl } from '../../worker/data/dataset.ts';
import { evalBatches } from '../../worker/data/eval-loader.ts';
import { ShardCache } from '../../worker/data/shard-cache.ts';
import type { CommandContext } from '../context.ts';
import { defaultCacheDir, storeUrl } from '../local-paths.ts';
import { withStore } from '../open-store.ts';
import type { VerifySamples } from './verify-samples.ts';

const CACHE_BYTES_MAX = 20 * 2 ** 30;

/** The first pictures of a dataset with their captions, or their labels where they have none. */
export async function datasetVerifySamples(
  manifestUrl: string,
  { count, imageSide }: { readonly count: number; readonly imageSide: number },
  context: CommandContext,
): Promise<VerifySamples> {
  const { storeUrl: url, key } = splitManifestUrl(storeUrl(manifestUrl));
  return withStore(context, url, async (store) => {
    const dataset = await openDataset(store, key, { signal: context.signal });
    const cache = new ShardCache(
      { dir: defaultCacheDir(), bytesMax: CACHE_BYTES_MAX },
      { store, logger: context.logger },
    );
    try {
      const options = { imageSide, batch: count, pixelsMax: PIXELS_MAX_DEFAULT };
      for await (const { pixels, samples } of evalBatches(options, { dataset, cache }, context.signal)) {
        const captions = samples.map(({ record }) => String(record.captions[0] ?? record.label ?? ''));
        return { pixels, captions, count: samples.length, source: `${samples.length} pictures of ${manifestUrl}` };
      }
      throw new CoveyError('INVALID_ARGUMENT', `Cannot verify: ${manifestUrl} has no picture that can be read`);
    } finally {
      await cache.close();
    }
  });
}
