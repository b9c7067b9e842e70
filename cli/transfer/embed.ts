import path from 'node:path';
import { CoveyError } from '../../common/errors.ts';
import { newBackbone } from '../../models/vision/backbone.ts';
import type { ShardPart } from '../../transfer/features/embed-dataset.ts';
import type { EmbeddingFormat } from '../../transfer/features/embedding-folder.ts';
import { type BackboneOptions, openBackbone } from './backbone-options.ts';
import { embedInto, prepareFolder } from './embed-into.ts';
import { embedByWorkers } from './embed-workers.ts';
import { frozenEncoder } from './frozen-encoder.ts';
import { type ComputeOptions, noneReadable, type TransferSession } from './session.ts';

export interface EmbedCommandOptions extends BackboneOptions, ComputeOptions {
  readonly data: string;
  readonly out: string;
  readonly format?: readonly string[];
  readonly normalise?: boolean;
  readonly part?: ShardPart;
  readonly workers?: number;
  readonly page?: number;
}

/** The body of `covey embed`. */
export async function embed(session: TransferSession, source: string, options: EmbedCommandOptions) {
  const { context } = session;
  const formats = formatsOf(options.format ?? []);
  const { backbone } = await openBackbone(context, source, options);
  const opened = await session.openDataset(options.data);
  const { dataset, cache } = opened;
  const { out, data: manifest, normalise: normalised = false, part } = options;
  const target = { out, manifest, formats, normalised };
  const { featureWidth: dimensions } = newBackbone(backbone.vision);
  const { digest, origin } = backbone;
  const folder = await prepareFolder({ digest, origin, columns: dimensions }, opened, target);
  const progress =
    (options.workers ?? 1) === 1
      ? await embedInto(session, frozenEncoder(session, backbone), opened, folder, part)
      : await embedByWorkers(session, { source, options }, { dataset, folder });
  // Of a part the rest may be elsewhere.
  if (part === undefined && (await folder.countRows()) === 0) throw noneReadable(dataset.sampleCount);
  const files = [out];
  if (options.page !== undefined) {
    const { writeNeighbourPage } = await import('./neighbour-page.ts');
    const file = path.join(out, 'neighbours.html');
    await writeNeighbourPage(
      { file, pages: options.page, title: `Neighbours: ${backbone.origin}`, createdAt: session.now() },
      { folder, dataset, cache, signal: context.signal },
    );
    files.push(file);
  }
  return { ...progress, dimensions, backbone: backbone.origin, files };
}

export function formatsOf(given: readonly string[]): EmbeddingFormat[] {
  const unknown = given.filter((one) => one !== 'npy' && one !== 'parquet');
  if (unknown.length > 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot write features as ${unknown.join(', ')}: there are npy and parquet`,
    );
  }
  // npy is what covey itself reads.
  return given.includes('parquet') ? ['npy', 'parquet'] : ['npy'];
}
