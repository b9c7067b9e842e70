import { type Command, Option } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import { addTemplateOptions, type TemplateOptions, templatesOf } from './template-options.ts';

/** Options that say what a new head begins as. */
export interface HeadOptions extends TemplateOptions {
  readonly fromScratch?: boolean;
  readonly head: 'random' | 'probe' | 'zeroshot';
}

export function addHeadOptions(command: Command): Command {
  return addHeadStart(command.option('--from-scratch', 'random weights instead of the backbone’s, to compare with'));
}

/** The same for a command that needs the backbone's weights. */
export function addHeadStart(command: Command): Command {
  const head = new Option(
    '--head <init>',
    'the new head starts random, as a linear probe, or as the text tower’s class weights: of the names, or the mean over templates',
  );
  return addTemplateOptions(
    command.addOption(head.choices(['random', 'probe', 'zeroshot']).default('random')),
    'zeroshot: ',
  );
}

/**
 * The options with the templates of files and sets among those of `template`.
 * @throws CoveyError INVALID_ARGUMENT where the options contradict each other, or for what is no template
 */
export async function checkedHead<Options extends HeadOptions>(options: Options): Promise<Options> {
  const { head, fromScratch, templates, template } = options;
  const refuse = (reason: string): never => {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot make the head: ${reason}`);
  };
  if (fromScratch === true && head === 'zeroshot')
    refuse('random weights share no space with texts; leave --head zeroshot out');
  if (templates === undefined && template === undefined) return options;
  if (head !== 'zeroshot') refuse(`${template ? '--template' : '--templates'} belongs to --head zeroshot`);
  return { ...options, templates: [], template: await templatesOf(options, 'name') };
}
