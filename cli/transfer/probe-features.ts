import path from 'node:path';
import { CoveyError } from '../../common/errors.ts';
import type { LabelledFeatures } from '../../models/linear/logistic-regression.ts';
import type { Backbone } from '../../transfer/backbone.ts';
import type { LabelledSample, LabelledSet } from '../../transfer/data/labelled-set.ts';
import type { PictureEncoder } from '../../transfer/features/extract-features.ts';
import { SampleRows } from '../../transfer/features/sample-rows.ts';
import { embedInto, prepareFolder } from './embed-into.ts';
import { frozenEncoder } from './frozen-encoder.ts';
import { type LabelOptions, labelSpace } from './label-options.ts';
import { noneReadable, type OpenedDataset, type TransferSession } from './session.ts';

export interface ProbeFeatureOptions extends Pick<LabelOptions, 'data' | 'test' | 'labelKey' | 'classes'> {
  /** Where features are kept, below it. */
  readonly out: string;
}

export interface OpenedLabels {
  readonly opened: OpenedDataset;
  readonly set: LabelledSet;
}

/** @throws CoveyError INVALID_ARGUMENT where the labels are of no use */
export async function openLabels(session: TransferSession, options: ProbeFeatureOptions): Promise<OpenedLabels> {
  const opened = await session.openDataset(options.data);
  return { opened, set: await session.readLabels(opened.dataset, await labelSpace(options)) };
}

export interface ProbeFeatures {
  /** Those that can be decoded. */
  readonly samples: readonly LabelledSample[];
  of(samples: readonly LabelledSample[]): LabelledFeatures;
  /** Of the pictures to judge by, where there are any beside. */
  readonly test: LabelledFeatures | undefined;
}

/** A frozen backbone's features of labelled pictures: computed, or read where they have been. */
export async function probeFeatures(
  session: TransferSession,
  backbone: Backbone,
  { opened, set }: OpenedLabels,
  options: ProbeFeatureOptions,
): Promise<ProbeFeatures> {
  return session.part(async (part) => {
    const encoder = frozenEncoder(part, backbone);
    const features = await featureReader(part, encoder, opened, path.join(options.out, 'features'), options.data);
    const test = options.test === undefined ? undefined : await testFeatures(part, encoder, set.classes, options);
    return { samples: set.samples.filter(features.has), of: features.of, test };
  });
}

/** Features of a dataset, kept in a folder so that an interrupted probe need not compute them again. */
async function featureReader(
  session: TransferSession,
  encoder: PictureEncoder,
  opened: OpenedDataset,
  out: string,
  manifest: string,
) {
  const folder = await prepareFolder(encoder, opened, { out, manifest, formats: ['npy'], normalised: false });
  await embedInto(session, encoder, opened, folder);
  const rows = new SampleRows(await folder.readAll());
  if (rows.count === 0) throw noneReadable(opened.dataset.sampleCount);
  return {
    has: (sample: LabelledSample) => rows.has(sample),
    of: (samples: readonly LabelledSample[]): LabelledFeatures => ({
      features_ND: rows.of(samples),
      labels_N: Int32Array.from(samples, ({ label }) => label),
      dimensions: rows.columns,
    }),
  };
}

async function testFeatures(
  session: TransferSession,
  encoder: PictureEncoder,
  classes: readonly string[],
  options: ProbeFeatureOptions,
): Promise<LabelledFeatures> {
  const manifest = options.test!;
  const opened = await session.openDataset(manifest);
  const set = await session.readLabels(opened.dataset, { labelKey: options.labelKey, classes });
  const reader = await featureReader(session, encoder, opened, path.join(options.out, 'features-test'), manifest);
  const samples = set.samples.filter(reader.has);
  if (samples.length > 0) return reader.of(samples);
  throw new CoveyError('INVALID_ARGUMENT', `Cannot judge by ${manifest}: none of its labelled pictures can be read`);
}
