import path from 'node:path';
import { CoveyError } from '../../common/errors.ts';
import { writeJsonFile } from '../../common/json-file.ts';
import { makeFolder, writeWhole } from '../../common/whole-file.ts';
import type { Evaluation } from '../../transfer/tune/evaluate.ts';
import type { TuneResult } from '../../transfer/tune/tune.ts';
import { type WisePoint, wiseCurve } from '../../transfer/tune/wise-ft.ts';
import { renderPage } from '../report/page.ts';
import { type BackboneOptions, openBackbone } from './backbone-options.ts';
import { checkedHead } from './head-options.ts';
import type { ComputeOptions, TransferSession } from './session.ts';
import { classSection, factsSection, historySection, percent, wiseSection } from './task-report.ts';
import { recipeOf, type TuneOptions } from './tune-options.ts';
import { openTask, type TaskOptions, type TuneTask, trainTask } from './tune-task.ts';
import { methodOf, writeTuned } from './tuned-files.ts';

export interface FinetuneOptions extends BackboneOptions, ComputeOptions, TaskOptions, TuneOptions {
  readonly out: string;
  readonly wise?: boolean;
}

/** The body of `covey finetune`: everything it writes is in the output folder, and what it needs to go on as well. */
export async function finetune(session: TransferSession, source: string, given: FinetuneOptions) {
  const options = await checkedHead(given);
  checkWise(options);
  const recipe = recipeOf(options);
  const task = await openTask(session, await openBackbone(session.context, source, options), recipe, options);
  const { network, split, classNames } = task;
  const { engine } = session;
  const { signal } = session.context;
  const out = await makeFolder(options.out);
  const classes = classNames.length;
  const before = options.wise === true ? network.read() : undefined;
  const { result, evaluation } = await trainTask(session, task, options, out);
  const judging = { engine, network, pictures: task.judged.pictures, signal };
  const curve =
    before && (await wiseCurve({ from: before, to: network.read() }, task.judged.samples, classes, judging));
  const files = await writeTuned(out, { ...task, how: 'fine-tuned' });
  const summary = summaryOf(task, result, evaluation, curve);
  await writeJsonFile(path.join(out, 'result.json'), { ...summary, classNames });
  const report = path.join(out, 'report.html');
  await writeWhole(
    report,
    await renderPage({
      title: `Fine-tuned: ${task.backbone.origin}`,
      summary: `${classes} classes, ${split.train.length} labelled pictures, ${split.validation.length} to validate by; ${methodOf(recipe)}.`,
      createdAt: session.now(),
      headline: [
        {
          label: 'accuracy',
          value: percent(evaluation.accuracy),
          note: `${evaluation.samples} pictures, ${task.judgedOn}`,
        },
        { label: 'mean over classes', value: percent(evaluation.classAccuracy) },
        { label: 'trained', value: percent(summary.trainedShare), note: 'of the backbone’s parameters' },
        {
          label: 'steps',
          value: String(result.steps),
          note: result.stoppedEarly ? 'stopped early' : `best at ${result.best.step}`,
        },
      ],
      sections: [
        historySection(result.history, result.best),
        ...(curve ? [wiseSection(curve, task.judgedOn)] : []),
        classSection(evaluation, classNames, task.judgedOn),
        factsSection({ backbone: task.backbone.origin, head: options.head }, JSON.stringify(recipe, null, 2)),
      ],
    }),
  );
  return { ...summary, files: [...files, report] };
}

function checkWise({ wise, head }: FinetuneOptions): void {
  if (wise === true && head === 'random') {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      'Cannot fine-tune: --wise needs a head that means something before training; add --head probe or --head zeroshot',
    );
  }
}

function summaryOf(
  { recipe, backbone, classNames, split, judgedOn }: TuneTask,
  result: TuneResult,
  evaluation: Evaluation,
  curve: readonly WisePoint[] | undefined,
) {
  return {
    backbone: backbone.origin,
    method: methodOf(recipe),
    classes: classNames.length,
    train: split.train.length,
    validation: split.validation.length,
    judgedOn,
    judged: evaluation.samples,
    accuracy: evaluation.accuracy,
    classAccuracy: evaluation.classAccuracy,
    steps: result.steps,
    bestStep: result.best.step,
    validationAccuracy: result.best.accuracy,
    stoppedEarly: result.stoppedEarly,
    trainedParameters: result.trained,
    trainedShare: result.trained / result.backbone,
    ...(curve ? { wise: curve.map(({ alpha, evaluation: { accuracy } }) => ({ alpha, accuracy })) } : {}),
  };
}
