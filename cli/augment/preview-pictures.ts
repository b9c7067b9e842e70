import { readdir, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { CoveyError } from '../../common/errors.ts';
import { openDataset, splitManifestUrl } from '../../worker/data/dataset.ts';
import { byCodePoint } from '../../worker/data/pack/candidate.ts';
import { isImage } from '../../worker/data/pack/folder-source.ts';
import { iconSetSamples, renderIcon } from '../../worker/data/pack/icon-source.ts';
import { readImageBytes } from '../../worker/data/sample-source.ts';
import { ShardCache } from '../../worker/data/shard-cache.ts';
import type { CommandContext } from '../context.ts';
import { defaultCacheDir, storeUrl } from '../local-paths.ts';
import { withStore } from '../open-store.ts';

const ICON_SIDE = 256;
const CACHE_BYTES_MAX = 20 * 2 ** 30;

export interface PreviewPicture {
  readonly name: string;
  /** What the draws are keyed by: the place in the dataset, the folder or the set. */
  readonly sampleIndex: number;
  readonly bytes: Uint8Array;
}

/**
 * At most `count` pictures, evenly spread over a picture file, a folder, `icons:<sets>` or a dataset's manifest (path or URL). Throws
 * NOT_FOUND where there is none.
 */
export async function previewPictures(
  input: string,
  count: number,
  context: CommandContext,
): Promise<readonly PreviewPicture[]> {
  if (input.startsWith('icons:')) return iconPictures(input.slice('icons:'.length).split(','), count);
  if (input.includes('://') || input.endsWith('.json')) return datasetPictures(storeUrl(input), count, context);
  const found = await stat(input).catch(() => undefined);
  if (found === undefined) {
    throw new CoveyError(
      'NOT_FOUND',
      `Cannot preview ${input}: no such file or folder; give a picture, a folder, a manifest or icons:<set>`,
    );
  }
  if (found.isFile()) return [{ name: path.basename(input), sampleIndex: 0, bytes: await readFile(input) }];
  const names = (await readdir(input, { recursive: true })).filter(isImage).sort(byCodePoint);
  if (names.length === 0) throw new CoveyError('NOT_FOUND', `Cannot preview ${input}: no pictures in it`);
  const chosen = spread(names.length, count);
  return Promise.all(
    chosen.map(async (index) => ({
      name: names[index]!,
      sampleIndex: index,
      bytes: await readFile(path.join(input, names[index]!)),
    })),
  );
}

function iconPictures(sets: readonly string[], count: number): Promise<PreviewPicture[]> {
  const samples = iconSetSamples(sets, { side: ICON_SIDE });
  return Promise.all(
    spread(samples.length, count).map(async (index) => {
      const sample = samples[index]!;
      return { name: `${sample.set}:${sample.name}`, sampleIndex: index, bytes: await renderIcon(sample) };
    }),
  );
}

async function datasetPictures(url: string, count: number, context: CommandContext): Promise<PreviewPicture[]> {
  const { signal, logger } = context;
  const { storeUrl: store, key } = splitManifestUrl(url);
  return withStore(context, store, async (opened) => {
    const dataset = await openDataset(opened, key, { signal });
    const cache = new ShardCache({ dir: defaultCacheDir(), bytesMax: CACHE_BYTES_MAX }, { store: opened, logger });
    try {
      return await Promise.all(
        spread(dataset.sampleCount, count).map(async (index) => {
          const located = await dataset.locate(index, signal);
          const bytes = await readImageBytes(cache, located, signal);
          return { name: located.sampleId, sampleIndex: index, bytes };
        }),
      );
    } finally {
      await cache.close();
    }
  });
}

/** `count` of [0, n), evenly apart. */
function spread(n: number, count: number): readonly number[] {
  const taken = Math.min(n, count);
  return Array.from({ length: taken }, (_, i) => Math.floor(((i + 0.5) * n) / taken));
}
