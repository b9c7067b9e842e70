import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import { fromFileError } from '../../common/file-errors.ts';
import { fewShots, fractionByClass, type LabelledSample, splitByClass } from '../../transfer/data/labelled-set.ts';
import { wholeNumber } from '../option-values.ts';
import { realNumber } from './session.ts';

/** Options of every command that learns from labels: which they are, and how many of them. */
export interface LabelChoices {
  readonly labelKey?: string;
  readonly classes?: string;
  readonly validation: number;
  readonly fraction?: number;
  readonly shots?: number;
  readonly seed: number;
}

/** With the pictures themselves. */
export interface LabelOptions extends LabelChoices {
  readonly data: string;
  readonly test?: string;
}

export function addLabelOptions(command: Command): Command {
  return addLabelCounts(addLabelledData(command));
}

export function addLabelChoices(command: Command): Command {
  return addLabelCounts(addLabelSpace(command));
}

/** All but how many of the labels are used. */
export function addLabelledData(command: Command): Command {
  command
    .requiredOption('--data <manifest>', 'manifest (URL or path) of the labelled pictures')
    .option('--test <manifest>', 'pictures to judge by, not seen before (default: the validation split)');
  return addLabelSpace(command);
}

function addLabelSpace(command: Command): Command {
  return command
    .option('--label-key <key>', 'key of the samples’ meta that is the label (default: their label)')
    .option('--classes <file>', 'the label space, a name per line (default: the labels that occur)')
    .option('--validation <share>', 'share of each class that is kept for validation', realNumber(0, 0.9), 0.2)
    .option('--seed <n>', 'of splits, first weights and augmentation', wholeNumber(0), 0);
}

function addLabelCounts(command: Command): Command {
  return command
    .option('--fraction <share>', 'of the rest only this share of each class, at least one', realNumber(0, 1))
    .option('--shots <n>', 'of the rest only so many of each class', wholeNumber(1));
}

/** What `TransferSession.openLabelled` asks for. */
export async function labelSpace({ labelKey, classes }: Pick<LabelChoices, 'labelKey' | 'classes'>) {
  return { ...(labelKey === undefined ? {} : { labelKey }), classes: await classesOf(classes) };
}

async function classesOf(file: string | undefined): Promise<string[] | undefined> {
  if (file === undefined) return undefined;
  const text = await readFile(file, 'utf8').catch((thrown: unknown) => {
    throw fromFileError(thrown, 'read the classes', file);
  });
  const lines = text.split('\n').map((line) => line.trim());
  const names = lines.filter((line) => line !== '');
  if (names.length === 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot use the classes of ${file}: there is no class in it; write a name per line`,
      { fields: { file } },
    );
  }
  const repeated = names.filter((name, i) => names.indexOf(name) !== i);
  if (repeated.length === 0) return names;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot use the classes of ${file}: ${[...new Set(repeated)].join(', ')} occur more than once; a line is a class`,
    { fields: { file, repeated } },
  );
}

export interface LabelSplit {
  readonly train: readonly LabelledSample[];
  readonly validation: readonly LabelledSample[];
}

/** @throws CoveyError INVALID_ARGUMENT where too little is left to learn from or to validate by */
export function splitLabels(samples: readonly LabelledSample[], options: LabelChoices): LabelSplit {
  const { validation: share, fraction, shots, seed } = options;
  if (fraction !== undefined && shots !== undefined) {
    throw new CoveyError('INVALID_ARGUMENT', 'Cannot choose samples: --fraction and --shots are both given; use one');
  }
  const { chosen: validation, rest } = splitByClass(samples, share, seed);
  const some = fraction === undefined ? rest : fractionByClass(rest, fraction, seed);
  const train = shots === undefined ? some : fewShots(rest, shots, seed);
  const classes = new Set(train.map(({ label }) => label)).size;
  if (classes < 2 || validation.length === 0) {
    throw new CoveyError(
      'INVALID_ARGUMENT',
      `Cannot learn from ${samples.length} labelled pictures: ${train.length} of ${classes} classes are left for training and ${validation.length} for validation; label more, or lower --validation`,
      { fields: { train: train.length, classes, validation: validation.length } },
    );
  }
  return { train, validation };
}
