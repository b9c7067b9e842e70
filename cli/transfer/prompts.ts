import path from 'node:path';
import type { Command } from 'commander';
import { writeJsonFile } from '../../common/json-file.ts';
import { writeWhole } from '../../common/whole-file.ts';
import type { PromptStudy } from '../../transfer/prompts/prompt-study.ts';
import type { CommandContext } from '../context.ts';
import { EXIT, type ExitCode } from '../exit-codes.ts';
import { wholeNumber } from '../option-values.ts';
import { addPromptOptions, type PromptOptions } from './prompt-options.ts';
import { realNumber, TransferSession } from './session.ts';
import { percent } from './task-report.ts';
import { templatesOf } from './template-options.ts';
import { pictureReader, warnOfCutTexts } from './zero-shot.ts';
import { openZeroShotTask, type ZeroShotTask } from './zero-shot-task.ts';

export interface PromptsOptions extends PromptOptions {
  readonly out: string;
  readonly validation: number;
  readonly ensembleMax: number;
  readonly seed: number;
}

export function addPromptsOptions(command: Command): Command {
  command
    .requiredOption(
      '-o, --out <folder>',
      'results and report; may be that of `covey zeroshot`, whose embeddings it takes',
    )
    .option(
      '--validation <share>',
      'share of the pictures that templates are chosen by; the others judge',
      realNumber(0, 1),
      0.5,
    )
    .option('--ensemble-max <n>', 'templates of the searched ensemble at most', wholeNumber(1, 1000), 10)
    .option('--seed <n>', 'of the split', wholeNumber(0), 0);
  return addPromptOptions(command);
}

/** `covey prompts`. */
export async function promptsCommand(
  context: CommandContext,
  source: string,
  options: PromptsOptions,
): Promise<ExitCode> {
  const result = await TransferSession.run(context, options, (session) => prompts(session, source, options));
  context.output.result(result, `${summaryOf(context, result)}\n${path.join(options.out, 'prompts.html')}`);
  return EXIT.ok;
}

async function prompts(session: TransferSession, source: string, options: PromptsOptions) {
  const { studyPrompts } = await import('../../transfer/prompts/prompt-study.ts');
  const { signal } = session.context;
  const templates = await templatesOf(options, 'openai-80');
  const task = await openZeroShotTask(session, source, options, options.out);
  const { model, classes, textsFolder } = task;
  const reports = {
    texts: session.progress('texts'),
    templates: session.progress('templates'),
    ensembles: session.progress('ensembles'),
  };
  const { descriptions, validation, ensembleMax, seed } = options;
  const study = await studyPrompts(
    { classes, templates, descriptions, validation, ensembleMax, seed },
    {
      model,
      pictures: task,
      textsFolder,
      signal,
      onProgress: (what, done, total) => reports[what](done, total),
    },
  );
  const cutTexts = new Map(study.templates.map((one) => [one.template, one.cutTexts]));
  warnOfCutTexts(session, templates, (template) => cutTexts.get(template)!);
  const result = {
    model: model.origin,
    data: options.data,
    classes: classes.length,
    descriptions,
    validation,
    seed,
    ...figuresOf(study),
  };
  await writeResults(session, options.out, task, { study, result });
  return result;
}

async function writeResults(
  session: TransferSession,
  folder: string,
  task: ZeroShotTask,
  {
    study,
    result,
  }: { readonly study: PromptStudy; readonly result: { readonly model: string; readonly data: string } },
): Promise<void> {
  const { promptsPage } = await import('./prompts-page.ts');
  const page = await promptsPage({
    origin: result.model,
    data: result.data,
    createdAt: session.now(),
    study,
    classNames: task.classes.map(({ name }) => name),
    labels_N: task.labels_N,
    picture: await pictureReader(task, session.context.signal),
    recipe: JSON.stringify(result, null, 2),
  });
  const { sensitivity, ensemble } = study;
  const flips = sensitivity.flips.most.map(({ row, templates }) => ({ sampleId: task.keys[row]!, templates }));
  const whole = { ...result, classSpread: sensitivity.classes, flips };
  await writeWhole(path.join(folder, 'best-templates.txt'), ensemble.map((template) => `${template}\n`).join(''));
  await writeWhole(path.join(folder, 'prompts.html'), page);
  await writeJsonFile(path.join(folder, 'prompts.json'), whole);
}

function summaryOf(
  { output }: CommandContext,
  { ways, searchPictures, judgedPictures, sensitivity, ensemble }: Figures,
) {
  const { accuracy, flippedPictures } = sensitivity;
  return [
    output.table(
      ['way', 'templates', `chosen by ${searchPictures}`, `judged by ${judgedPictures}`],
      ways.map((way) => [way.name, way.templates, percent(way.searchAccuracy), percent(way.judgedAccuracy)]),
    ),
    `one template alone: ${percent(accuracy.least)} to ${percent(accuracy.most)} of all pictures; ${percent(flippedPictures)} of them flip`,
    ...ensemble.map((template) => `  ${template}`),
  ].join('\n');
}

type Figures = ReturnType<typeof figuresOf>;

function figuresOf({ split, ways, ensemble, search, sensitivity, templates }: PromptStudy) {
  const { accuracy, flips } = sensitivity;
  return {
    searchPictures: split.search.length,
    judgedPictures: split.judge.length,
    ways: ways.map(({ templates: own, ...way }) => ({ ...way, templates: own.length })),
    ensemble,
    search: search.steps.map((step) => ({ ...step, template: templates[step.template]!.template })),
    sensitivity: { accuracy, flippedPictures: flips.pictures, meanDisagreement: flips.meanDisagreement },
    templates,
  };
}
