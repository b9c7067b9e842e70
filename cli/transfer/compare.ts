import { rm } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { readJsonFile, writeJsonFile } from '../../common/json-file.ts';
import { mean } from '../../common/mean.ts';
import { makeFolder, writeWhole } from '../../common/whole-file.ts';
import { linearProbe } from '../../transfer/probe.ts';
import type { TuneRecipe } from '../../transfer/tune/tune-recipe.ts';
import { type BackboneOptions, type OpenedBackbone, openBackbone } from './backbone-options.ts';
import { comparisonPage } from './compare-report.ts';
import { COMPARED, COMPARED_IN_WORDS, type ComparedMethod } from './compared-methods.ts';
import { PROGRESS_FILE } from './kept-training.ts';
import { type LabelOptions, splitLabels } from './label-options.ts';
import { type OpenedLabels, openLabels, type ProbeFeatures, probeFeatures } from './probe-features.ts';
import { expectSameTask } from './same-task.ts';
import type { ComputeOptions, TransferSession } from './session.ts';
import { recipeOf, type TuneOptions } from './tune-options.ts';
import { openTask, type TaskOptions, trainTask } from './tune-task.ts';

export interface CompareOptions
  extends BackboneOptions,
    ComputeOptions,
    Omit<LabelOptions, 'fraction' | 'shots'>,
    TuneOptions {
  readonly out: string;
  readonly fractions: readonly number[];
  readonly methods: readonly ComparedMethod[];
  readonly seeds: number;
}

const cellSchema = z.object({
  method: z.enum(COMPARED),
  fraction: z.number(),
  seed: z.int(),
  /** Pictures learnt from. */
  pictures: z.int(),
  judged: z.int(),
  accuracy: z.number(),
  classAccuracy: z.number(),
});

/** One method with one share of the labels and one seed. */
type Cell = z.infer<typeof cellSchema>;

export interface ComparedRow {
  readonly method: ComparedMethod;
  readonly fraction: number;
  /** Pictures learnt from, mean over the seeds. */
  readonly pictures: number;
  /** Mean over the seeds, and the least and the largest of them. */
  readonly accuracy: number;
  readonly accuracyRange: readonly [number, number];
  /** The same where every class counts one. */
  readonly classAccuracy: number;
  readonly classAccuracyRange: readonly [number, number];
}

/**
 * The body of `covey compare`: what a backbone is worth with some shares of the labels, against random weights of its shape. Every cell of the table that is
 * done stays done; one that was interrupted goes on where it was.
 */
export async function compareBackbone(session: TransferSession, source: string, options: CompareOptions) {
  const recipes = { finetune: recipeOf(options), scratch: recipeOf(withoutBackbone(options)) };
  const labelled = await openLabels(session, options);
  const opened = await openBackbone(session.context, source, options);
  const out = await makeFolder(options.out);
  const test = options.test === undefined ? undefined : (await session.openDataset(options.test)).dataset.sha256;
  const facts = { ...factsOf(opened, labelled, recipes, options), test };
  await expectSameTask(path.join(out, 'task.json'), 'comparison', facts);
  const cells: Cell[] = [];
  const wanted = cellsOf(options);
  for (const [done, { method, fraction, seed }] of wanted.entries()) {
    session.say(
      `${done + 1} of ${wanted.length}: ${COMPARED_IN_WORDS[method]}, ${fraction} of the labels, seed ${seed}`,
    );
    cells.push(await session.part((part) => cell(part, { method, fraction, seed }, opened, labelled, options)));
  }
  const rows = rowsOf(cells, options);
  const summary = {
    backbone: opened.backbone.origin,
    judgedOn: options.test === undefined ? 'validation' : 'test',
    judged: cells[0]!.judged,
    classes: labelled.set.classes.length,
    seeds: options.seeds,
    rows,
  };
  await writeJsonFile(path.join(out, 'result.json'), { ...summary, cells });
  const report = path.join(out, 'report.html');
  await writeWhole(report, await comparisonPage(summary, recipes, session.now()));
  return { ...summary, files: [report] };
}

interface CellKey {
  readonly method: ComparedMethod;
  readonly fraction: number;
  readonly seed: number;
}

function cellsOf({ methods, fractions, seeds, seed: first }: CompareOptions): CellKey[] {
  // By seed: the pictures of one seed are kept decoded for all of its cells.
  return Array.from({ length: seeds }, (_, i) => first + i).flatMap((seed) =>
    fractions.flatMap((fraction) => methods.map((method) => ({ method, fraction, seed }))),
  );
}

/** A cell's result: read where it is there, else computed and kept. */
async function cell(
  session: TransferSession,
  key: CellKey,
  opened: OpenedBackbone,
  labelled: OpenedLabels,
  options: CompareOptions,
): Promise<Cell> {
  const { method, fraction, seed } = key;
  const folder = await makeFolder(path.join(options.out, 'cells', `${method}-${fraction}-${seed}`));
  const file = path.join(folder, 'cell.json');
  // As large as the weights and their moments, and of no use once the cell is done.
  const tidied = () => rm(path.join(folder, PROGRESS_FILE), { force: true });
  const kept = cellSchema.safeParse(await readJsonFile(file));
  if (kept.success) {
    await tidied();
    return kept.data;
  }
  const own = { ...(method === 'scratch' ? withoutBackbone(options) : options), fraction, seed };
  const { pictures, evaluation } =
    method === 'probe'
      ? await probed(session, opened, labelled, own)
      : await trained(session, opened, folder, { ...own, head: 'random', fromScratch: method === 'scratch' });
  const { samples: judged, accuracy, classAccuracy } = evaluation;
  const result = { ...key, pictures, judged, accuracy, classAccuracy };
  await writeWhole(file, `${JSON.stringify(result)}\n`);
  await tidied();
  return result;
}

type CellOptions = CompareOptions & Pick<LabelOptions, 'fraction'>;

async function probed(
  session: TransferSession,
  { backbone }: OpenedBackbone,
  labelled: OpenedLabels,
  options: CellOptions,
) {
  const { samples, of, test }: ProbeFeatures = await probeFeatures(session, backbone, labelled, options);
  const { train, validation } = splitLabels(samples, options);
  const { signal } = session.context;
  const sets = { train: of(train), validation: of(validation), test };
  const { evaluation } = linearProbe(sets, { classes: labelled.set.classes.length, signal });
  return { pictures: train.length, evaluation };
}

async function trained(
  session: TransferSession,
  opened: OpenedBackbone,
  folder: string,
  options: CellOptions & TaskOptions,
) {
  const task = await openTask(session, opened, recipeOf(options), options);
  const { evaluation } = await trainTask(session, task, options, folder);
  return { pictures: task.split.train.length, evaluation };
}

/** Random weights learn at one rate, all of them, from the first step: what is made to spare a backbone would only hold them back. */
function withoutBackbone(options: CompareOptions): CompareOptions {
  const { unlockedGroups: _, adapter: __, headOnly: ___, ...rest } = options;
  return { ...rest, backboneLr: 1, layerDecay: 1, headSteps: 0 };
}

function factsOf(
  { backbone }: OpenedBackbone,
  { opened, set }: OpenedLabels,
  recipes: Readonly<Record<'finetune' | 'scratch', TuneRecipe>>,
  { labelKey, validation, fractions, methods, seeds, seed }: CompareOptions,
) {
  const data = opened.dataset.sha256;
  return {
    ...{ backbone: backbone.digest, data, labelKey, classes: set.classes, validation },
    ...{ fractions, methods, seeds, seed, recipes },
  };
}

function rowsOf(cells: readonly Cell[], { fractions, methods }: CompareOptions): ComparedRow[] {
  return methods.flatMap((method) =>
    fractions.map((fraction) => {
      const own = cells.filter((one) => one.method === method && one.fraction === fraction);
      const accuracies = own.map(({ accuracy }) => accuracy);
      const classAccuracies = own.map(({ classAccuracy }) => classAccuracy);
      return {
        method,
        fraction,
        pictures: mean(own.map(({ pictures }) => pictures)),
        accuracy: mean(accuracies),
        accuracyRange: rangeOf(accuracies),
        classAccuracy: mean(classAccuracies),
        classAccuracyRange: rangeOf(classAccuracies),
      };
    }),
  );
}

const rangeOf = (values: readonly number[]) => [Math.min(...values), Math.max(...values)] as const;
