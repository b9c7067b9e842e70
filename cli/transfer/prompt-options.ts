import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { type Command, Option } from 'commander';
import { CoveyError } from '../../common/errors.ts';
import type { PromptClass } from '../../transfer/zero-shot/class-list.ts';
import { DESCRIPTION_MODES, type DescriptionMode } from '../../transfer/zero-shot/prompt-space.ts';
import { TEMPLATE_SETS } from '../../transfer/zero-shot/template-sets.ts';
import { repeated } from '../option-values.ts';
import { addBackboneOptions, type BackboneOptions } from './backbone-options.ts';
import { addComputeOptions, type ComputeOptions } from './session.ts';

/** Options of every command that makes a classifier of texts. */
export interface PromptOptions extends BackboneOptions, ComputeOptions {
  readonly data: string;
  readonly classes?: string;
  readonly labelKey?: string;
  readonly templates?: readonly string[];
  readonly template?: readonly string[];
  readonly descriptions: DescriptionMode;
}

const SETS = Object.keys(TEMPLATE_SETS);

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
    .option('--label-key <key>', 'key of the samples’ meta that is the label (default: their label)')
    .option(
      '--templates <file>',
      `templates with {} for the class, one per line or a Python list; or a set: ${SETS.join(', ')}; may be repeated`,
      repeated,
    )
    .option('--template <text>', 'a template; may be repeated', repeated)
    .addOption(
      new Option(
        '--descriptions <way>',
        'where classes have several: their average, the nearest to a picture, or the name alone',
      )
        .choices([...DESCRIPTION_MODES])
        .default('average'),
    );
  return addComputeOptions(addBackboneOptions(command));
}

const FILE_BYTES_MAX = 64 * 2 ** 20;

/** The templates of all options together. @throws CoveyError INVALID_ARGUMENT for what is no template, or is there twice */
export async function templatesOf(
  { templates = [], template = [] }: Pick<PromptOptions, 'templates' | 'template'>,
  otherwise: string,
): Promise<string[]> {
  const { checkedTemplates, parseTemplates } = await import('../../transfer/zero-shot/template-file.ts');
  const sources = templates.length + template.length === 0 ? [otherwise] : templates;
  const found: { template: string; place: string }[] = [];
  for (const source of sources) {
    const set = TEMPLATE_SETS[source];
    const own = set ?? parseTemplates(await readPromptFile(source, `or name a set: ${SETS.join(', ')}`), source);
    found.push(...own.map((one) => ({ template: one, place: set ? `the set ${source}` : source })));
  }
  found.push(...template.map((one) => ({ template: one, place: '--template' })));
  return checkedTemplates(found);
}

/** The classes of `--classes`. */
export async function promptClassesOf(file: string | undefined): Promise<PromptClass[] | undefined> {
  if (file === undefined) return undefined;
  const { parseClasses } = await import('../../transfer/zero-shot/class-list.ts');
  return parseClasses(await readPromptFile(file, 'name a file with a class per line'), file);
}

async function readPromptFile(file: string, instead: string): Promise<string> {
  const found = await stat(file).catch(() => undefined);
  if (!found?.isFile()) {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot read ${file}: there is no such file; ${instead}`, {
      fields: { file: path.resolve(file) },
    });
  }
  if (found.size > FILE_BYTES_MAX) {
    throw new CoveyError('INVALID_ARGUMENT', `Cannot read ${file}: ${found.size} bytes are too many for such a file`);
  }
  return readFile(file, 'utf8');
}
