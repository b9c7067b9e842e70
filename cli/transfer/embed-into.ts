import type { ShardPart } from '../../transfer/features/embed-dataset.ts';
import type { EmbeddingFacts, EmbeddingFolder } from '../../transfer/features/embedding-folder.ts';
import type { TransferNetwork } from '../../transfer/network.ts';
import { type OpenedDataset, PIXELS_MAX, type TransferSession } from './session.ts';

export interface EmbeddingTarget extends Pick<EmbeddingFacts, 'formats' | 'normalised'> {
  readonly out: string;
  /** URL of the dataset. */
  readonly manifest: string;
}

/** Opens an output folder for a network's features of a dataset. @throws CoveyError INVALID_ARGUMENT where it holds others */
export async function prepareFolder(
  network: TransferNetwork,
  { dataset }: OpenedDataset,
  { out, manifest, formats, normalised }: EmbeddingTarget,
): Promise<EmbeddingFolder> {
  const { EmbeddingFolder } = await import('../../transfer/features/embedding-folder.ts');
  const { digest, origin } = network.source;
  return EmbeddingFolder.prepare(out, {
    version: 1,
    backbone: { digest, origin },
    dataset: { name: dataset.manifest.name, sha256: dataset.sha256, manifest },
    dimensions: network.featureWidth,
    formats,
    normalised,
  });
}

/** Computes what the folder lacks, in this process, and says how far it is. */
export async function embedInto(
  session: TransferSession,
  network: TransferNetwork,
  { dataset, cache }: OpenedDataset,
  folder: EmbeddingFolder,
  part?: ShardPart,
) {
  const { embedDataset } = await import('../../transfer/features/embed-dataset.ts');
  const report = session.progress('pictures');
  const { engine } = session;
  const { signal, output } = session.context;
  return embedDataset(
    { pixelsMax: PIXELS_MAX, ...(part ? { part } : {}) },
    {
      engine,
      network,
      dataset,
      cache,
      folder,
      signal,
      onProgress: ({ done, total, skipped }) => report(done - skipped, total - skipped),
      onBroken: (sampleId, reason) => output.warn(leftOut(sampleId, reason)),
    },
  );
}

export const leftOut = (sampleId: string, reason: string) => `${sampleId} left out: ${reason}`;
