import path from 'node:path';
import { CoveyError } from '../../common/errors.ts';
import { makeFolder, writeWhole } from '../../common/whole-file.ts';
import type { LabelledFeatures } from '../../models/linear/logistic-regression.ts';
import type { Backbone } from '../../transfer/backbone.ts';
import { type LabelledSample, readLabelledSet } from '../../transfer/data/labelled-set.ts';
import { networkEncoder } from '../../transfer/features/extract-features.ts';
import { headTensors, writeHeadFile } from '../../transfer/head-file.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { linearProbe, type ProbeResult } from '../../transfer/probe.ts';
import { renderPage } from '../report/page.ts';
import { type BackboneOptions, openBackbone } from './backbone-options.ts';
import { embedInto, prepareFolder } from './embed-into.ts';
import { classesOf, type LabelOptions, splitLabels } from './label-options.ts';
import type { ComputeOptions, OpenedDataset, TransferSession } from './session.ts';
import { classSection, factsSection, percent, sweepSection } from './task-report.ts';

export interface ProbeOptions extends BackboneOptions, ComputeOptions, LabelOptions {
  readonly out: string;
}

/** The body of `covey probe`. */
export async function probe(session: TransferSession, source: string, options: ProbeOptions) {
  const { context } = session;
  const { signal } = context;
  const given = await classesOf(options.classes);
  const opened = await session.openDataset(options.data);
  const set = await readLabelledSet(opened.dataset, { metaKey: options.labelKey, classes: given }, signal);
  const { backbone } = await openBackbone(context, source, options);
  const network = session.own(new TransferNetwork(backbone, { seed: 0, precision: 'fp32' }), (one) => one.dispose());
  await makeFolder(options.out);
  const features = await featureReader(session, network, opened, path.join(options.out, 'features'), options.data);
  const { train, validation } = splitLabels(set.samples.filter(features.has), options);
  const test = options.test === undefined ? undefined : await testFeatures(session, network, set.classes, options);
  const report = session.progress('penalties');
  const classes = set.classes.length;
  const found = linearProbe(
    { train: features.of(train), validation: features.of(validation), test },
    { classes, signal, onTrial: ({ l2 }, done, total) => report(done, total, `λ ${l2.toExponential(1)}`) },
  );
  await writeHeadFile(path.join(options.out, 'head.safetensors'), {
    classes: set.classes,
    space: 'features',
    backbone,
    tensors: headTensors(found.final.classifier),
  });
  const result = summary(found, { backbone, classes, train: train.length, validation: validation.length });
  await writeWhole(
    path.join(options.out, 'probe.json'),
    `${JSON.stringify({ ...result, classNames: set.classes }, null, 2)}\n`,
  );
  await writeWhole(path.join(options.out, 'report.html'), await page(found, result, set.classes, session.now()));
  return result;
}

/** Features of a dataset, kept in a folder so that an interrupted probe need not compute them again. */
async function featureReader(
  session: TransferSession,
  network: TransferNetwork,
  opened: OpenedDataset,
  out: string,
  manifest: string,
) {
  const encoder = networkEncoder(session.engine, network);
  const folder = await prepareFolder(encoder, opened, { out, manifest, formats: ['npy'], normalised: false });
  await embedInto(session, encoder, opened, folder);
  const { keys, features } = await folder.readAll();
  const rows = new Map(keys.map(({ key }, row) => [key, row]));
  const dimensions = features.columns;
  return {
    has: ({ located }: LabelledSample) => rows.has(located.sampleId),
    of(samples: readonly LabelledSample[]): LabelledFeatures {
      const features_ND = new Float32Array(samples.length * dimensions);
      samples.forEach(({ located }, n) => {
        const row = rows.get(located.sampleId)!;
        features_ND.set(features.values.subarray(row * dimensions, (row + 1) * dimensions), n * dimensions);
      });
      return { features_ND, labels_N: Int32Array.from(samples, ({ label }) => label), dimensions };
    },
  };
}

async function testFeatures(
  session: TransferSession,
  network: TransferNetwork,
  classes: readonly string[],
  options: ProbeOptions,
): Promise<LabelledFeatures> {
  const manifest = options.test!;
  const opened = await session.openDataset(manifest);
  const labels = { metaKey: options.labelKey, classes };
  const set = await readLabelledSet(opened.dataset, labels, session.context.signal);
  const reader = await featureReader(session, network, opened, path.join(options.out, 'features-test'), manifest);
  const samples = set.samples.filter(reader.has);
  if (samples.length > 0) return reader.of(samples);
  throw new CoveyError('INVALID_ARGUMENT', `Cannot judge by ${manifest}: none of its labelled pictures can be read`);
}

function summary(
  found: ProbeResult,
  facts: { readonly backbone: Backbone; readonly classes: number; readonly train: number; readonly validation: number },
) {
  const { evaluation, final, sweep } = found;
  return {
    backbone: facts.backbone.origin,
    classes: facts.classes,
    train: facts.train,
    validation: facts.validation,
    judgedOn: found.judgedOn,
    judged: evaluation.samples,
    accuracy: evaluation.accuracy,
    classAccuracy: evaluation.classAccuracy,
    knnAccuracy: found.knnAccuracy,
    l2: sweep.best.l2,
    validationAccuracy: sweep.best.validation.accuracy,
    iterations: final.iterations,
    gradientNorm: final.gradientNorm,
    gradientNormRelative: final.gradientNormRelative,
    converged: final.converged && sweep.trials.every(({ fit }) => fit.converged),
  };
}

function page(found: ProbeResult, result: ReturnType<typeof summary>, classes: readonly string[], createdAt: string) {
  const { evaluation, sweep } = found;
  return renderPage({
    title: `Linear probe of ${result.backbone}`,
    summary: `A linear classifier of ${result.classes} classes on frozen features, fitted to ${result.train} pictures; the penalty by ${result.validation} others.`,
    createdAt,
    headline: [
      {
        label: 'accuracy',
        value: percent(evaluation.accuracy),
        note: `${evaluation.samples} pictures, ${found.judgedOn}`,
      },
      { label: 'mean over classes', value: percent(evaluation.classAccuracy) },
      { label: 'kNN, k = 20', value: percent(found.knnAccuracy) },
      { label: 'gradient norm, relative', value: result.gradientNormRelative.toExponential(1) },
    ],
    sections: [
      classSection(evaluation, classes, found.judgedOn),
      sweepSection(sweep.trials, sweep.best),
      factsSection({ backbone: result.backbone, λ: result.l2.toExponential(2) }, JSON.stringify(result, null, 2)),
    ],
  });
}
