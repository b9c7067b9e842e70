import path from 'node:path';
import { writeJsonFile } from '../../common/json-file.ts';
import { makeFolder, writeWhole } from '../../common/whole-file.ts';
import type { Backbone } from '../../transfer/backbone.ts';
import { headTensors, writeHeadFile } from '../../transfer/head-file.ts';
import { linearProbe, type ProbeResult } from '../../transfer/probe.ts';
import { renderPage } from '../report/page.ts';
import { type BackboneOptions, openBackbone } from './backbone-options.ts';
import { type LabelOptions, splitLabels } from './label-options.ts';
import { openLabels, probeFeatures } from './probe-features.ts';
import type { ComputeOptions, TransferSession } from './session.ts';
import { classSection, factsSection, percent, sweepSection } from './task-report.ts';

export interface ProbeOptions extends BackboneOptions, ComputeOptions, LabelOptions {
  readonly out: string;
}

/** The body of `covey probe`. */
export async function probe(session: TransferSession, source: string, options: ProbeOptions) {
  const { signal } = session.context;
  // Labels that are of no use are found before anything is computed.
  const labelled = await openLabels(session, options);
  const { backbone } = await openBackbone(session.context, source, options);
  await makeFolder(options.out);
  const { samples, of, test } = await probeFeatures(session, backbone, labelled, options);
  const { train, validation } = splitLabels(samples, options);
  const report = session.progress('penalties');
  const { classes: classNames } = labelled.set;
  const classes = classNames.length;
  const found = linearProbe(
    { train: of(train), validation: of(validation), test },
    { classes, signal, onTrial: ({ l2 }, done, total) => report(done, total, `λ ${l2.toExponential(1)}`) },
  );
  await writeHeadFile(path.join(options.out, 'head.safetensors'), {
    classes: classNames,
    space: 'features',
    backbone,
    tensors: headTensors(found.final.classifier),
  });
  const result = summary(found, { backbone, classes, train: train.length, validation: validation.length });
  await writeJsonFile(path.join(options.out, 'probe.json'), { ...result, classNames });
  await writeWhole(path.join(options.out, 'report.html'), await page(found, result, classNames, session.now()));
  return result;
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
