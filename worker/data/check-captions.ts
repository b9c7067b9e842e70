import type { RunConfig } from '../../common/config/run-config.ts';
import { CoveyError } from '../../common/errors.ts';
import type { WeightedDataset } from './sample-set.ts';

/**
 * Whether the first sample of a dataset has a caption, and its captions name the sources that `data.captions.weights` weighs; a single sample
 * without one is replaced like a broken picture.
 * @throws CoveyError CONFIG_INVALID
 */
export async function checkCaptions(
  { name, dataset }: Pick<WeightedDataset, 'name' | 'dataset'>,
  { objective, data }: Pick<RunConfig, 'objective' | 'data'>,
  signal?: AbortSignal,
): Promise<void> {
  const { sampleId, record } = await dataset.locate(0, signal);
  const { weights } = data.captions;
  const [path, message] =
    record.captions.length === 0
      ? [
          'objective',
          `${objective} learns from captions, dataset ${name} has none; pack it with captions or use simclr, mae or another that needs none`,
        ]
      : weights !== undefined && record.captionSources === undefined
        ? [
            'data.captions.weights',
            `weighs caption sources, dataset ${name} does not name them; pack it with --caption-keys`,
          ]
        : [];
  if (path === undefined) return;
  throw new CoveyError('CONFIG_INVALID', `Cannot use dataset ${name}: ${path}: ${message} (${sampleId})`, {
    fields: { problems: [{ path, message }], sampleId },
  });
}
