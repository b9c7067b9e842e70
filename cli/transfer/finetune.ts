import path from 'node:path';
import { CoveyError } from '../../common/errors.ts';
import { makeFolder, writeWhole } from '../../common/whole-file.ts';
import type { Backbone } from '../../transfer/backbone.ts';
import type { LabelledSample } from '../../transfer/data/labelled-set.ts';
import type { PictureSource } from '../../transfer/data/picture-source.ts';
import type { TransferNetwork } from '../../transfer/network.ts';
import { evaluateNetwork } from '../../transfer/tune/evaluate.ts';
import { type TuneModules, type TuneResult, tune } from '../../transfer/tune/tune.ts';
import type { TuneRecipe } from '../../transfer/tune/tune-recipe.ts';
import { type WisePoint, wiseCurve } from '../../transfer/tune/wise-ft.ts';
import { renderPage } from '../report/page.ts';
import { type BackboneOptions, openBackbone } from './backbone-options.ts';
import { checkHeadOptions, type HeadOptions } from './head-options.ts';
import { keptTraining } from './kept-training.ts';
import { type LabelOptions, type LabelSplit, labelSpace, splitLabels } from './label-options.ts';
import { chosenBackbone, newNetwork } from './new-head.ts';
import { expectSameTask } from './same-task.ts';
import type { ComputeOptions, TransferSession } from './session.ts';
import { classSection, factsSection, historySection, percent, wiseSection } from './task-report.ts';
import { recipeOf, type TuneOptions } from './tune-options.ts';
import { methodOf, writeTuned } from './tuned-files.ts';

export interface FinetuneOptions extends BackboneOptions, ComputeOptions, HeadOptions, LabelOptions, TuneOptions {
  readonly out: string;
  readonly wise?: boolean;
}

interface Task {
  readonly recipe: TuneRecipe;
  readonly backbone: Backbone;
  readonly network: TransferNetwork;
  readonly classNames: readonly string[];
  readonly split: LabelSplit;
  readonly pictures: PictureSource;
  readonly judgedOn: 'test' | 'validation';
  readonly judged: { readonly samples: readonly LabelledSample[]; readonly pictures: PictureSource };
}

/** The body of `covey finetune`: everything it writes is in the output folder, and what it needs to go on as well. */
export async function finetune(session: TransferSession, source: string, options: FinetuneOptions) {
  checkOptions(options);
  const recipe = recipeOf(options);
  const task = await openTask(session, source, recipe, options);
  const { network, split, pictures, classNames } = task;
  const { engine } = session;
  const { signal } = session.context;
  const out = await makeFolder(options.out);
  await expectSameTask(path.join(out, 'task.json'), 'fine-tuning', taskFacts(task, options));
  const classes = classNames.length;
  const modules: TuneModules = { engine, network, pictures, ...split, classes, signal };
  const before = options.wise === true ? network.read() : undefined;
  const result = await keptTraining(session, recipe, path.join(out, 'progress.safetensors'), (hooks, from) =>
    tune(recipe, modules, hooks, from),
  );
  const judging = { engine, network, pictures: task.judged.pictures, signal };
  const evaluation = await evaluateNetwork(task.judged.samples, classes, judging);
  const curve =
    before && (await wiseCurve({ from: before, to: network.read() }, task.judged.samples, classes, judging));
  const files = await writeTuned(out, { ...task, how: 'fine-tuned' });
  const summary = summaryOf(task, result, evaluation, curve);
  await writeWhole(path.join(out, 'result.json'), `${JSON.stringify({ ...summary, classNames }, null, 2)}\n`);
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

function checkOptions(options: FinetuneOptions): void {
  checkHeadOptions(options);
  if (options.wise === true && options.head === 'random') {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      'Cannot fine-tune: --wise needs a head that means something before training; add --head probe or --head zeroshot',
    );
  }
}

async function openTask(
  session: TransferSession,
  source: string,
  recipe: TuneRecipe,
  options: FinetuneOptions,
): Promise<Task> {
  const { augment, seed } = recipe;
  const opened = await openBackbone(session.context, source, options);
  const backbone = chosenBackbone(opened, options, seed);
  const pictureOptions = { imageSide: backbone.vision.imageSize, augment, seed };
  const labels = await labelSpace(options);
  const { set, pictures } = await session.openLabelled(options.data, labels, pictureOptions);
  const split = splitLabels(set.samples, options);
  const headTask = { backbone, classNames: set.classes, split, pictures };
  const network = await newNetwork(session, opened, headTask, recipe, options);
  const test =
    options.test === undefined
      ? undefined
      : await session.openLabelled(options.test, { ...labels, classes: set.classes }, pictureOptions);
  const judged = test
    ? { samples: test.set.samples, pictures: test.pictures }
    : { samples: split.validation, pictures };
  const judgedOn = test ? 'test' : 'validation';
  return { recipe, backbone, network, classNames: set.classes, split, pictures, judgedOn, judged };
}

/** What a folder's training is of: it is only gone on with where all of it is the same. */
function taskFacts({ recipe, backbone, network, classNames, split }: Task, options: FinetuneOptions) {
  return {
    backbone: backbone.digest,
    head: options.head,
    space: network.space,
    templates: options.template ?? [],
    classes: classNames,
    train: split.train.map(({ located }) => located.sampleId),
    validation: split.validation.map(({ located }) => located.sampleId),
    recipe,
  };
}

function summaryOf(
  { recipe, backbone, classNames, split, judgedOn }: Task,
  result: TuneResult,
  evaluation: Awaited<ReturnType<typeof evaluateNetwork>>,
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
