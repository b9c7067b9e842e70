import type { Command } from 'commander';
import { TEMPLATE_SETS } from '../../transfer/zero-shot/template-sets.ts';
import { repeated } from '../option-values.ts';
import { readPromptFile } from './prompt-file.ts';

/** The words a class is called in: files or sets of templates, and templates themselves. */
export interface TemplateOptions {
  readonly templates?: readonly string[];
  readonly template?: readonly string[];
}

const SETS = Object.keys(TEMPLATE_SETS);

/** @param when where they are not of use to the whole command: what they belong to, for the help */
export function addTemplateOptions(command: Command, when = ''): Command {
  return command
    .option(
      '--templates <file>',
      `${when}templates with {} for the class, one per line or a Python list; or a set: ${SETS.join(', ')}; may be repeated`,
      repeated,
    )
    .option('--template <text>', `${when}a template; may be repeated`, repeated);
}

/**
 * The templates of both options together.
 * @param otherwise the set that is taken where neither is given
 * @throws CoveyError INVALID_ARGUMENT for what is no template, or is there twice
 */
export async function templatesOf(
  { templates = [], template = [] }: TemplateOptions,
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
