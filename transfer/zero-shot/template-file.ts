import { CoveyError } from '../../common/errors.ts';

/** A template that is longer is no template. */
const CHARACTERS_MAX = 1000;
const TEMPLATES_MAX = 10_000;
const SHOWN_MAX = 60;

export interface SourcedTemplate {
  readonly template: string;
  /** For messages: `templates.txt, line 3`. */
  readonly place: string;
}

/**
 * The templates of a file: one per line, `{}` where the class goes, blank lines and lines that begin with `#` left out; or a list as Python writes it,
 * of strings or of `lambda c: f'a photo of a {c}.'`, as OpenAI and open_clip publish theirs. It is read as text; nothing in it is run.
 * @param file its name, for messages
 * @throws CoveyError INVALID_ARGUMENT naming the line that is no template, a template that is there twice, or a file without any
 */
export function parseTemplates(text: string, file: string): string[] {
  if (text.includes('\0')) throw unusable(file, 'it is not text');
  const lines = text
    .replace(/^\uFEFF/, '')
    .split(/\r\n|\n|\r/)
    .map((line, index) => ({ line: line.trim(), place: `${file}, line ${index + 1}` }))
    .filter(({ line }) => line !== '' && !line.startsWith('#'));
  const isPython = lines[0] !== undefined && (OPENING.test(lines[0].line) || isItems(lines[0].line));
  const found = lines.flatMap(({ line, place }): SourcedTemplate[] => {
    if (!isPython) return [{ template: line, place }];
    return pythonItems(line, place).map((template) => ({ template, place }));
  });
  if (found.length === 0) throw unusable(file, 'there is no template in it; write one per line, with {} for the class');
  return checkedTemplates(found);
}

/** @throws CoveyError INVALID_ARGUMENT for one without a place for the class, with other braces, too long, or there twice */
export function checkedTemplates(found: readonly SourcedTemplate[]): string[] {
  if (found.length > TEMPLATES_MAX) {
    throw unusable(found[0]!.place, `${found.length} templates are too many; at most ${TEMPLATES_MAX} can be used`);
  }
  const places = new Map<string, string>();
  for (const { template, place } of found) {
    const problem = problemOf(template);
    if (problem !== undefined) throw unusable(place, `${problem}: ${shown(template)}`);
    const before = places.get(template);
    if (before !== undefined)
      throw unusable(place, `${shown(template)} is there already (${before}); take one of them out`);
    places.set(template, place);
  }
  return [...places.keys()];
}

function problemOf(template: string): string | undefined {
  if (template.length > CHARACTERS_MAX) return `it has ${template.length} characters, ${CHARACTERS_MAX} are the most`;
  if (!template.includes('{}')) return 'it has no {} for the class';
  if (/[{}]/.test(template.split('{}').join(''))) return 'only {} may stand in braces';
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
  if (/[\u0000-\u001f\u007f]/.test(template)) return 'it has control characters';
  return undefined;
}

function unusable(place: string, reason: string): CoveyError {
  return new CoveyError('INVALID_ARGUMENT', `Cannot use the templates of ${place}: ${reason}`, { fields: { place } });
}

function shown(text: string): string {
  return JSON.stringify(text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}…` : text);
}

/** `openai_imagenet_template = [`, `[` or `(`, perhaps with the first items on the same line. */
const OPENING = /^(?:[A-Za-z_]\w*\s*=\s*)?[[(](?=\s*(?:$|['"]|f['"]|lambda\b|#))/;
const CLOSING = /^[\])]\s*,?\s*(?:#.*)?$/;
const LAMBDA = /^lambda\s+([A-Za-z_]\w*)\s*:\s*/;
const NOT_AN_ITEM = "it is neither a string nor lambda c: f'…{c}…'; such a file is read as text and never run";

function isItems(line: string): boolean {
  if (LAMBDA.test(line)) return true;
  const quote = line.startsWith('f') ? line[1] : line[0];
  const end = line.endsWith(',') ? line.slice(0, -1).trimEnd() : line;
  return (quote === "'" || quote === '"') && end.length > 2 && end.endsWith(quote);
}

/** The strings of one line of a Python list. */
function pythonItems(line: string, place: string): string[] {
  const items: string[] = [];
  let rest = line.replace(OPENING, '').trim();
  while (rest !== '' && !rest.startsWith('#') && !CLOSING.test(rest)) {
    const lambda = LAMBDA.exec(rest);
    const literal = readLiteral(rest.slice(lambda?.[0].length ?? 0), place);
    items.push(withPlace(literal.text, lambda?.[1], place));
    const after = literal.rest.trim();
    if (after !== '' && !/^[,\])#]/.test(after)) throw unusable(place, `${NOT_AN_ITEM}: ${shown(line)}`);
    rest = after.startsWith(',') ? after.slice(1).trim() : after;
  }
  return items;
}

/** One quoted string, with or without `f`; escapes of quotes and backslashes alone. */
function readLiteral(source: string, place: string): { readonly text: string; readonly rest: string } {
  const opening = /^f?(['"])/.exec(source);
  if (opening === null) throw unusable(place, `${NOT_AN_ITEM}: ${shown(source)}`);
  const quote = opening[1]!;
  let text = '';
  for (let i = opening[0].length; i < source.length; i++) {
    const character = source[i]!;
    if (character === quote) return { text, rest: source.slice(i + 1) };
    if (character !== '\\') {
      text += character;
      continue;
    }
    i++;
    const escaped = source[i] ?? '';
    if (!['\\', "'", '"'].includes(escaped)) {
      throw unusable(place, `only \\\\, \\' and \\" may be escaped: ${shown(source)}`);
    }
    text += escaped;
  }
  throw unusable(place, `its string does not end: ${shown(source)}`);
}

/** `{c}` becomes `{}`; in a lambda only its own argument may stand there, otherwise any name. */
function withPlace(text: string, argument: string | undefined, place: string): string {
  if (/\{\{|\}\}/.test(text)) throw unusable(place, `only {} may stand in braces: ${shown(text)}`);
  return text.replace(/\{\s*([A-Za-z_]\w*)\s*\}/g, (whole, name: string) => {
    if (argument !== undefined && name !== argument) {
      throw unusable(place, `${whole} is not the lambda's argument ${argument}: ${shown(text)}`);
    }
    return '{}';
  });
}
