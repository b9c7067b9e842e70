import path from 'node:path';
import type { Command } from 'commander';
import { writeJsonFile } from '../../common/json-file.ts';
import { writeWhole } from '../../common/whole-file.ts';
import type { CaptionRetrieval } from '../../transfer/zero-shot/caption-retrieval.ts';
import type { ZeroShotScores } from '../../transfer/zero-shot/zero-shot-scores.ts';
import type { RankedPictures } from '../../worker/eval/classify.ts';
import type { CommandContext } from '../context.ts';
import { EXIT, type ExitCode } from '../exit-codes.ts';
import { addPromptOptions, type PromptOptions } from './prompt-options.ts';
import { TransferSession } from './session.ts';
import { percent } from './task-report.ts';
import { templatesOf } from './template-options.ts';
import { locatedByKey, thumbnail } from './thumbnail.ts';
import { openZeroShotTask, type ZeroShotTask } from './zero-shot-task.ts';

export interface ZeroShotOptions extends PromptOptions {
  readonly out?: string;
  readonly predictions?: boolean;
}

export function addZeroShotOptions(command: Command): Command {
  addPromptOptions(command);
  return command
    .option('-o, --out <folder>', 'results and report, and embeddings that the next time are not computed again')
    .option('--predictions', 'also each picture’s five best classes: with --json, and in the folder predictions.jsonl');
}

const CONFUSIONS_MAX = 200;

/** `covey zeroshot`, and `covey eval zeroshot`. */
export async function zeroShotCommand(
  context: CommandContext,
  source: string,
  options: ZeroShotOptions,
): Promise<ExitCode> {
  const { figures, details } = await TransferSession.run(context, options, (session) =>
    zeroShot(session, source, options),
  );
  const { samples, classes, top1, top5, classAccuracy, meanRank, medianRank, retrieval } = figures;
  context.output.result(
    options.predictions ? { ...figures, predictions: details } : figures,
    [
      `${figures.model}: ${samples} pictures, ${classes} classes, ${figures.templates.length} templates`,
      `top-1 ${percent(top1)}, top-5 ${percent(top5)}, mean over classes ${percent(classAccuracy)} (chance ${(100 / classes).toFixed(2)} %)`,
      `place of the right class: mean ${meanRank.toFixed(1)}, median ${medianRank}`,
      ...(retrieval === null
        ? []
        : [
            `retrieval R@1, 5, 10: picture → caption ${recalls(retrieval.metrics, 'image_to_text')}, caption → picture ${recalls(retrieval.metrics, 'text_to_image')}`,
          ]),
      ...(options.out === undefined ? [] : [path.join(options.out, 'zeroshot.html')]),
    ].join('\n'),
  );
  return EXIT.ok;
}

const recalls = (metrics: Readonly<Record<string, number>>, name: string) =>
  [1, 5, 10].map((k) => percent(metrics[`${name}_R@${k}`]!)).join(', ');

async function zeroShot(session: TransferSession, source: string, options: ZeroShotOptions) {
  const templates = await templatesOf(options, 'name');
  const task = await openZeroShotTask(session, source, options, options.out);
  const { ranked, scores, retrieval, cutTexts } = await evaluate(session, task, templates, options);
  const { perClass: _classes, confusions: _pairs, ...counts } = scores;
  const figures = {
    model: task.model.origin,
    data: options.data,
    ...counts,
    descriptions: options.descriptions,
    templates,
    cutTexts,
    retrieval: retrieval ?? null,
  };
  const details = options.predictions ? await predictions(task, ranked) : undefined;
  if (options.out !== undefined) {
    await writeResults(session, options.out, task, { figures, scores, retrieval, details });
  }
  return { figures, details };
}

async function evaluate(
  session: TransferSession,
  task: ZeroShotTask,
  templates: readonly string[],
  { descriptions }: ZeroShotOptions,
) {
  const { ClassifierBuilder } = await import('../../transfer/zero-shot/build-classifier.ts');
  const { rankClasses } = await import('../../worker/eval/classify.ts');
  const { zeroShotScores } = await import('../../transfer/zero-shot/zero-shot-scores.ts');
  const { captionRetrieval } = await import('../../transfer/zero-shot/caption-retrieval.ts');
  const { signal } = session.context;
  const { model, classes, embeddings, labels_N } = task;
  const builder = new ClassifierBuilder({ ...task, descriptions }, model);
  const classifier = await builder.classifier(templates, { signal, onTexts: session.progress('texts') });
  const cutTexts = warnOfCutTexts(session, templates, (template) => builder.texts.cutTexts(template));
  const { engine, model: clip, tokenizer } = model;
  const ranked = await rankClasses(embeddings, labels_N, classifier, { engine, signal });
  const classNames = classes.map(({ name }) => name);
  const scores = zeroShotScores(ranked, labels_N, classNames);
  // Where every caption is the class's name, retrieval would ask the same once more.
  const isAnother = task.captions.some((own, n) => own.some((caption) => caption !== classNames[labels_N[n]!]));
  const report = session.progress('captions');
  const retrieval = isAnother
    ? await captionRetrieval(embeddings, task.captions, { engine, model: clip, tokenizer }, { signal, onTexts: report })
    : undefined;
  return { ranked, scores, retrieval, cutTexts };
}

interface Results {
  readonly figures: { readonly model: string; readonly data: string; readonly templates: readonly string[] };
  readonly scores: ZeroShotScores;
  readonly retrieval: CaptionRetrieval | undefined;
  readonly details: readonly object[] | undefined;
}

async function writeResults(
  session: TransferSession,
  folder: string,
  task: ZeroShotTask,
  { figures, scores, retrieval, details }: Results,
): Promise<void> {
  const { zeroShotPage } = await import('./zero-shot-page.ts');
  const { perClass } = scores;
  if (details !== undefined) {
    const lines = details.map((one) => `${JSON.stringify(one)}\n`);
    await writeWhole(path.join(folder, 'predictions.jsonl'), lines.join(''));
  }
  const page = await zeroShotPage({
    origin: figures.model,
    data: figures.data,
    createdAt: session.now(),
    scores,
    templates: figures.templates,
    retrieval,
    picture: await pictureReader(task, session.context.signal),
    pictureOf: (label) => {
      const row = task.labels_N.indexOf(label);
      return row < 0 ? undefined : row;
    },
    recipe: JSON.stringify(figures, null, 2),
  });
  await writeWhole(path.join(folder, 'zeroshot.html'), page);
  const whole = { ...figures, classList: task.classes, perClass, confusions: namedConfusions(task, scores) };
  await writeJsonFile(path.join(folder, 'zeroshot.json'), whole);
}

/** A text beyond the context loses its end, and with it perhaps the name. @returns how many there are */
export function warnOfCutTexts(
  { context }: TransferSession,
  templates: readonly string[],
  cutTexts: (template: string) => number,
): number {
  const cut = templates.map((template) => ({ template, texts: cutTexts(template) })).filter(({ texts }) => texts > 0);
  const total = cut.reduce((sum, { texts }) => sum + texts, 0);
  if (total > 0) {
    context.output.warn(
      `${total} texts of ${cut.length} templates are longer than the model’s context and lose their end, first of ${JSON.stringify(cut[0]!.template)}; shorten template or descriptions`,
    );
  }
  return total;
}

/** Pictures of a task's rows, as data URIs. */
export async function pictureReader(
  { dataset, cache, keys }: ZeroShotTask,
  signal: AbortSignal,
): Promise<(row: number) => Promise<string>> {
  const located = await locatedByKey(dataset, signal);
  return (row) => thumbnail(located.get(keys[row]!), { cache, signal });
}

async function predictions({ keys, labels_N, classes }: ZeroShotTask, ranked: RankedPictures) {
  const { bestClasses } = await import('../../worker/eval/classify.ts');
  const classNames = classes.map(({ name }) => name);
  return keys.map((sampleId, n) => ({
    sampleId,
    label: classNames[labels_N[n]!]!,
    rank: ranked.rank_N[n]!,
    best: bestClasses(ranked, n, classNames),
  }));
}

function namedConfusions({ classes, keys }: ZeroShotTask, { confusions }: ZeroShotScores) {
  return confusions.slice(0, CONFUSIONS_MAX).map(({ truth, predicted, count, examples }) => ({
    truth: classes[truth]!.name,
    predicted: classes[predicted]!.name,
    count,
    examples: examples.map((row) => keys[row]!),
  }));
}
