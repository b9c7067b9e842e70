import { type Command, Option } from 'commander';
import type { PromptClass } from '../../transfer/zero-shot/class-list.ts';
import { DESCRIPTION_MODES, type DescriptionMode } from '../../transfer/zero-shot/prompt-space.ts';
import { addBackboneOptions, type BackboneOptions } from './backbone-options.ts';
import { readPromptFile } from './prompt-file.ts';
import { addComputeOptions, type ComputeOptions } from './session.ts';
import { addTemplateOptions, type TemplateOptions } from './template-options.ts';

/** Options of every command that makes a classifier of texts. */
export interface PromptOptions extends BackboneOptions, ComputeOptions, TemplateOptions {
  readonly data: string;
  readonly classes?: string;
  readonly labelKey?: string;
  readonly descriptions: DescriptionMode;
}

export function addPromptOptions(command: Command): Command {
  command
    .requiredOption(
      '--data <manifest>',
      'manifest (URL or path) of the pictures; a sample’s label is its class, or else its first caption',
    )
    .option(
      '--classes <file>',
      'a name per line, or name TAB description, or YAML or JSON with descriptions (default: the labels that occur)',
    )
    .option('--label-key <key>', 'key of the samples’ meta that is the label (default: their label)');
  addTemplateOptions(command).addOption(
    new Option(
      '--descriptions <way>',
      'where classes have several: their average, the nearest to a picture, or the name alone',
    )
      .choices([...DESCRIPTION_MODES])
      .default('average'),
  );
  return addComputeOptions(addBackboneOptions(command));
}

/** The classes of `--classes`. */
export async function promptClassesOf(file: string | undefined): Promise<PromptClass[] | undefined> {
  if (file === undefined) return undefined;
  const { parseClasses } = await import('../../transfer/zero-shot/class-list.ts');
  return parseClasses(await readPromptFile(file, 'name a file with a class per line'), file);
}
