import { readFile, rename, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { CoveyError } from '../../common/errors.ts';
import { exportOpenClip } from '../../models/formats/open-clip.ts';
import { sweepL2 } from '../../models/linear/l2-sweep.ts';
import { adapterFileOf, writeAdapterFile } from '../../transfer/adapters/adapter-file.ts';
import { type Backbone, scratchBackbone } from '../../transfer/backbone.ts';
import type { LabelledSample } from '../../transfer/data/labelled-set.ts';
import type { PictureSource } from '../../transfer/data/picture-source.ts';
import { labelledFeatures } from '../../transfer/features/extract-features.ts';
import { writeHeadFile } from '../../transfer/head-file.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import { evaluateNetwork } from '../../transfer/tune/evaluate.ts';
import { readProgress, writeProgress } from '../../transfer/tune/progress-file.ts';
import { type TuneModules, type TuneResult, tune } from '../../transfer/tune/tune.ts';
import type { TuneRecipe } from '../../transfer/tune/tune-recipe.ts';
import { type WisePoint, wiseCurve } from '../../transfer/tune/wise-ft.ts';
import { zeroShotHead } from '../../transfer/zero-shot-head.ts';
import { renderPage } from '../report/page.ts';
import { type BackboneOptions, type OpenedBackbone, openBackbone } from './backbone-options.ts';
import { classesOf, type LabelOptions, type LabelSplit, splitLabels } from './label-options.ts';
import { type ComputeOptions, outputFolder, type TransferSession } from './session.ts';
import { classSection, factsSection, historySection, percent, wiseSection } from './task-report.ts';
import { recipeOf, type TuneOptions } from './tune-options.ts';

export interface FinetuneOptions extends BackboneOptions, ComputeOptions, LabelOptions, TuneOptions {
  readonly out: string;
  readonly fromScratch?: boolean;
  readonly head: 'random' | 'probe' | 'zeroshot';
  readonly template?: readonly string[];
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
  const out = await outputFolder(options.out);
  await expectSameTask(path.join(out, 'task.json'), taskFacts(task, options));
  const classes = classNames.length;
  const modules: TuneModules = { engine, network, pictures, ...split, classes, signal };
  const before = options.wise === true ? network.read() : undefined;
  const result = await train(session, recipe, modules, path.join(out, 'progress.safetensors'));
  const judging = { engine, network, pictures: task.judged.pictures, signal };
  const evaluation = await evaluateNetwork(task.judged.samples, classes, judging);
  const curve =
    before && (await wiseCurve({ from: before, to: network.read() }, task.judged.samples, classes, judging));
  const files = await writeWeights(out, task);
  const summary = summaryOf(task, result, evaluation, curve);
  await writeFile(path.join(out, 'result.json'), `${JSON.stringify({ ...summary, classNames }, null, 2)}\n`);
  const report = path.join(out, 'report.html');
  await writeFile(
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

function checkOptions({ wise, head, fromScratch, template }: FinetuneOptions): void {
  const refuse = (reason: string): never => {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot fine-tune: ${reason}`);
  };
  if (wise === true && head === 'random')
    refuse('--wise needs a head that means something before training; add --head probe or --head zeroshot');
  if (fromScratch === true && head === 'zeroshot')
    refuse('random weights share no space with texts; leave --head zeroshot out');
  if (template !== undefined && head !== 'zeroshot') refuse('--template belongs to --head zeroshot');
}

async function openTask(
  session: TransferSession,
  source: string,
  recipe: TuneRecipe,
  options: FinetuneOptions,
): Promise<Task> {
  const { augment, seed } = recipe;
  const opened = await openBackbone(session.context, source, options);
  const backbone = options.fromScratch === true ? scratchBackbone(opened.backbone, seed) : opened.backbone;
  const pictureOptions = { imageSide: backbone.vision.imageSize, augment, seed };
  const labels = {
    ...(options.labelKey ? { labelKey: options.labelKey } : {}),
    classes: await classesOf(options.classes),
  };
  const { set, pictures } = await session.openLabelled(options.data, labels, pictureOptions);
  const split = splitLabels(set.samples, options);
  const network = session.own(
    new TransferNetwork(backbone, {
      classes: set.classes.length,
      space: options.head === 'zeroshot' ? 'embedding' : 'features',
      seed,
      precision: recipe.precision,
      ...(recipe.adapter ? { adapter: recipe.adapter } : {}),
    }),
    (one) => one.dispose(),
  );
  await initialHead(session, opened, network, { classNames: set.classes, split, pictures }, options);
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

async function initialHead(
  session: TransferSession,
  opened: OpenedBackbone,
  network: TransferNetwork,
  task: { readonly classNames: readonly string[]; readonly split: LabelSplit; readonly pictures: PictureSource },
  options: FinetuneOptions,
): Promise<void> {
  const { engine } = session;
  if (options.head === 'zeroshot') {
    network.setHead(zeroShotHead(await opened.text(), task.classNames, options.template ?? ['{}'], engine));
  } else if (options.head === 'probe') {
    const { signal } = session.context;
    const modules = { engine, network, pictures: task.pictures, signal };
    const train = await labelledFeatures(task.split.train, modules);
    const validation = await labelledFeatures(task.split.validation, modules);
    const { best } = sweepL2(train, validation, { classes: task.classNames.length, signal });
    network.setHead(best.fit.classifier);
  }
}

/** Trains, and keeps what it needs to go on after each evaluation. */
async function train(
  session: TransferSession,
  recipe: TuneRecipe,
  modules: TuneModules,
  progressFile: string,
): Promise<TuneResult> {
  const from = await readProgress(progressFile);
  const begin = from?.tuner.step ?? 0;
  if (begin > 0) session.say(`going on from step ${begin} of ${recipe.steps}`);
  const report = session.progress('step');
  let accuracy = from?.history.at(-1)?.accuracy;
  return tune(
    recipe,
    modules,
    {
      onStep: ({ step, loss }) => {
        const judged = accuracy === undefined ? '' : ` · validation ${percent(accuracy)}`;
        report(step + 1 - begin, recipe.steps - begin, `loss ${loss.toFixed(3)}${judged}`);
      },
      onProgress: async (progress) => {
        accuracy = progress.history.at(-1)?.accuracy;
        await writeProgress(progressFile, progress);
      },
    },
    from,
  );
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

async function expectSameTask(file: string, facts: ReturnType<typeof taskFacts>): Promise<void> {
  const wanted: Record<string, unknown> = JSON.parse(JSON.stringify(facts));
  let found: Record<string, unknown> | undefined;
  try {
    found = JSON.parse(await readFile(file, 'utf8')) as Record<string, unknown>;
  } catch (thrown) {
    if (!(thrown instanceof Error && 'code' in thrown && thrown.code === 'ENOENT')) throw CoveyError.from(thrown);
    await writeFile(`${file}.part`, `${JSON.stringify(wanted, null, 2)}\n`);
    await rename(`${file}.part`, file);
    return;
  }
  const different = Object.keys(wanted).filter((key) => JSON.stringify(wanted[key]) !== JSON.stringify(found[key]));
  if (different.length === 0) return;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot go on in ${path.dirname(file)}: another fine-tuning is there (${different.join(', ')} differ); choose another folder with --out`,
    { fields: { different } },
  );
}

async function writeWeights(out: string, { recipe, network, backbone, classNames }: Task): Promise<string[]> {
  if (recipe.adapter !== undefined) {
    const file = path.join(out, 'adapter.safetensors');
    await writeAdapterFile(file, adapterFileOf(network, recipe.adapter, classNames));
    return [file];
  }
  const head = path.join(out, 'head.safetensors');
  const tuned = recipe.method === 'full' ? network.mergedBackbone(`fine-tuned ${backbone.origin}`) : backbone;
  const tensors = network.read((name) => name.startsWith('head.') || name === 'visual.proj');
  await writeHeadFile(head, { classes: classNames, space: network.space, backbone: tuned, tensors });
  if (recipe.method !== 'full') return [head];
  const folder = path.join(out, 'backbone');
  await exportBackbone(folder, tuned);
  return [folder, head];
}

/** As open_clip files, which every transfer command takes as a backbone again. */
export async function exportBackbone(folder: string, backbone: Backbone): Promise<string[]> {
  const { vision, quickGelu, mean, std } = backbone;
  const weights = new Map([...backbone.weights].map(([name, { values }]) => [name, values]));
  return exportOpenClip(folder, { kind: 'backbone', vision, quickGelu, weights, preprocess: { mean, std } });
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

function methodOf({ method, adapter }: TuneRecipe): string {
  if (adapter !== undefined) return adapter.kind === 'conv' ? `conv adapters, ${adapter.placement}` : adapter.kind;
  return method === 'head' ? 'the head alone' : 'all weights';
}
