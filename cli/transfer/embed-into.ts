import { PIXELS_MAX_DEFAULT } from '../../common/config/pixels-max.ts';
import type { ShardPart } from '../../transfer/features/embed-dataset.ts';
import type { EmbeddingFacts, EmbeddingFolder } from '../../transfer/features/embedding-folder.ts';
import type { EmbeddingStore } from '../../transfer/features/embedding-store.ts';
import type { PictureEncoder } from '../../transfer/features/extract-features.ts';
import { storeUrl } from '../local-paths.ts';
import { leftOut, type OpenedDataset, type TransferSession } from './session.ts';

export interface EmbeddingTarget extends Pick<EmbeddingFacts, 'formats' | 'normalised'> {
  readonly out: string;
  /** URL of the dataset. */
  readonly manifest: string;
}

/** Opens an output folder for embeddings of a dataset. @throws CoveyError INVALID_ARGUMENT where it holds others */
export async function prepareFolder(
  { digest, origin, columns }: Pick<PictureEncoder, 'digest' | 'origin' | 'columns'>,
  { dataset }: OpenedDataset,
  { out, manifest, formats, normalised }: EmbeddingTarget,
): Promise<EmbeddingFolder> {
  const { EmbeddingFolder } = await import('../../transfer/features/embedding-folder.ts');
  return EmbeddingFolder.prepare(out, {
    version: 1,
    backbone: { digest, origin },
    dataset: { name: dataset.manifest.name, sha256: dataset.sha256, manifest: storeUrl(manifest) },
    dimensions: columns,
    formats,
    normalised,
  });
}

/** Computes what the store lacks, in this process, and says how far it is. */
export async function embedInto(
  session: TransferSession,
  encoder: PictureEncoder,
  { dataset, cache }: OpenedDataset,
  folder: EmbeddingStore,
  part?: ShardPart,
) {
  const { embedDataset } = await import('../../transfer/features/embed-dataset.ts');
  const report = session.progress('pictures');
  const { signal, output } = session.context;
  return embedDataset(
    { pixelsMax: PIXELS_MAX_DEFAULT, ...(part ? { part } : {}) },
    {
      encoder,
      dataset,
      cache,
      folder,
      signal,
      onProgress: ({ done, total, skipped }) => report(done - skipped, total - skipped),
      onBroken: (sampleId, reason) => output.warn(leftOut(sampleId, reason)),
    },
  );
}
