import { type Command, Option } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import { repeated } from '../option-values.ts';

/** Options that say what a new head begins as. */
export interface HeadOptions {
  readonly fromScratch?: boolean;
  readonly head: 'random' | 'probe' | 'zeroshot';
  readonly template?: readonly string[];
}

export function addHeadOptions(command: Command): Command {
  return addHeadStart(command.option('--from-scratch', 'random weights instead of the backbone’s, to compare with'));
}

/** The same for a command that needs the backbone's weights. */
export function addHeadStart(command: Command): Command {
  return command
    .addOption(
      new Option('--head <init>', 'the new head starts random, as a linear probe, or as the text tower’s class weights')
        .choices(['random', 'probe', 'zeroshot'])
        .default('random'),
    )
    .option(
      '--template <text>',
      'zeroshot: {} stands for the class name; several are averaged (default: {})',
      repeated,
    );
}

/** @throws CoveyError INVALID_ARGUMENT where they contradict each other */
export function checkHeadOptions({ head, fromScratch, template }: HeadOptions): void {
  const refuse = (reason: string): never => {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot make the head: ${reason}`);
  };
  if (fromScratch === true && head === 'zeroshot')
    refuse('random weights share no space with texts; leave --head zeroshot out');
  if (template !== undefined && head !== 'zeroshot') refuse('--template belongs to --head zeroshot');
}
