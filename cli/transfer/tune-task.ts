import path from 'node:path';
import type { Backbone } from '../../transfer/backbone.ts';
import type { LabelledSample } from '../../transfer/data/labelled-set.ts';
import type { PictureSample, PictureSource } from '../../transfer/data/picture-source.ts';
import type { TransferNetwork } from '../../transfer/network.ts';
import { type Evaluation, evaluateNetwork } from '../../transfer/tune/evaluate.ts';
import { type TuneModules, type TuneResult, tune } from '../../transfer/tune/tune.ts';
import type { TuneRecipe } from '../../transfer/tune/tune-recipe.ts';
import type { OpenedBackbone } from './backbone-options.ts';
import type { HeadOptions } from './head-options.ts';
import { keptTraining } from './kept-training.ts';
import { type LabelOptions, type LabelSplit, labelSpace, splitLabels } from './label-options.ts';
import { chosenBackbone, newNetwork } from './new-head.ts';
import { expectSameTask } from './same-task.ts';
import type { TransferSession } from './session.ts';

export interface TaskOptions extends HeadOptions, LabelOptions {}

/** A backbone, labelled pictures to learn from and pictures to be judged by. */
export interface TuneTask {
  readonly recipe: TuneRecipe;
  readonly backbone: Backbone;
  readonly network: TransferNetwork;
  readonly classNames: readonly string[];
  readonly split: LabelSplit;
  readonly pictures: PictureSource;
  readonly judgedOn: 'test' | 'validation';
  readonly judged: { readonly samples: readonly LabelledSample[]; readonly pictures: PictureSource };
}

/** Opens the labelled pictures of a task and makes its network; the session closes it. */
export async function openTask(
  session: TransferSession,
  opened: OpenedBackbone,
  recipe: TuneRecipe,
  options: TaskOptions,
): Promise<TuneTask> {
  const { augment, seed } = recipe;
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

interface TaskParts extends Pick<TuneTask, 'backbone' | 'network' | 'classNames' | 'split'> {
  readonly recipe: object;
}

/** What a folder's training is of: it is only gone on with where all of it is the same. */
export function taskFacts(
  { recipe, backbone, network, classNames, split }: TaskParts,
  options: Pick<HeadOptions, 'head' | 'template'>,
) {
  return {
    backbone: backbone.digest,
    head: options.head,
    space: network.space,
    templates: options.template ?? [],
    classes: classNames,
    train: sampleIds(split.train),
    validation: sampleIds(split.validation),
    recipe,
  };
}

export const sampleIds = (samples: readonly PictureSample[]) => samples.map(({ located }) => located.sampleId);

export interface TrainedTask {
  readonly result: TuneResult;
  /** On the pictures to be judged by. */
  readonly evaluation: Evaluation;
}

/**
 * Trains the task's network and judges it. What is needed to go on is in the folder, with what the training is of.
 * @throws CoveyError INVALID_ARGUMENT where the folder holds another task's
 */
export async function trainTask(
  session: TransferSession,
  task: TuneTask,
  options: TaskOptions,
  folder: string,
): Promise<TrainedTask> {
  const { recipe, network, split, pictures, classNames, judged } = task;
  const { engine } = session;
  const { signal } = session.context;
  await expectSameTask(path.join(folder, 'task.json'), 'fine-tuning', taskFacts(task, options));
  const classes = classNames.length;
  const modules: TuneModules = { engine, network, pictures, ...split, classes, signal };
  const result = await keptTraining(session, recipe, folder, (hooks, from) => tune(recipe, modules, hooks, from));
  const judging = { engine, network, pictures: judged.pictures, signal };
  return { result, evaluation: await evaluateNetwork(judged.samples, classes, judging) };
}
