import { z } from 'zod';
import { YamlSource } from '../../common/config/yaml-source.ts';
import { CoveyError } from '../../common/errors.ts';

/** A class of a zero-shot classifier. */
export interface PromptClass {
  /** What labels call it. */
  readonly name: string;
  /** What templates call it, at least one: descriptions where there are some ("crane, a bird"), otherwise the name. */
  readonly descriptions: readonly string[];
}

const CLASSES_MAX = 200_000;
const DESCRIPTIONS_MAX = 100;

const texts = z.union([z.string(), z.array(z.string())]);
const listSchema = z.array(
  z.union([
    z.string(),
    z.number().transform(String),
    z.strictObject({
      name: z.union([z.string(), z.number().transform(String)]),
      description: texts.optional(),
      descriptions: texts.optional(),
    }),
  ]),
);
const mapSchema = z.record(z.string(), z.union([texts, z.null()]));

interface Entry {
  readonly name: string;
  readonly descriptions: readonly string[];
  /** For messages. */
  readonly place: string;
}

/**
 * The classes of a file, in order. Text: a name per line, or `name<TAB>description` (more tabs or more lines of the same name: more descriptions). JSON
 * or YAML, by the ending: a list of names or of `{name, descriptions}`, or a map from names to descriptions.
 * @param file its name
 * @throws CoveyError INVALID_ARGUMENT naming the place of what cannot be used: no class, an empty name, a name or a description that is there twice
 */
export function parseClasses(text: string, file: string): PromptClass[] {
  if (text.includes('\0')) throw unusable(file, 'it is not text');
  const isYaml = /\.(json|ya?ml)$/i.test(file);
  const entries = isYaml ? yamlEntries(text, file) : lineEntries(text.replace(/^\uFEFF/, ''), file);
  return merged(entries, { file, mayRepeat: !isYaml });
}

/** Classes that are called by their names alone. @throws CoveyError INVALID_ARGUMENT for a name that is there twice */
export function namedClasses(names: readonly string[], origin: string): PromptClass[] {
  const entries = names.map((name, i) => ({ name, descriptions: [], place: `${origin}, class ${i + 1}` }));
  return merged(entries, { file: origin, mayRepeat: false });
}

function lineEntries(text: string, file: string): Entry[] {
  return text.split(/\r\n|\n|\r/).flatMap((line, index): Entry[] => {
    if (line.trim() === '') return [];
    const [name = '', ...descriptions] = line.split('\t').map((part) => part.trim());
    return [{ name, descriptions: descriptions.filter((one) => one !== ''), place: `${file}, line ${index + 1}` }];
  });
}

function yamlEntries(text: string, file: string): Entry[] {
  const source = new YamlSource(text);
  const [problem] = source.problems;
  if (problem !== undefined) throw unusable(`${file}, line ${problem.line ?? 1}`, problem.message);
  const value = source.value();
  const place = (key: string) => `${file}, line ${source.positionOf([key]).line}`;
  const list = listSchema.safeParse(value);
  if (list.success) {
    return list.data.map((one, i): Entry => {
      if (typeof one === 'string') return { name: one.trim(), descriptions: [], place: place(String(i)) };
      const descriptions = [one.description ?? [], one.descriptions ?? []].flat();
      return { name: one.name.trim(), descriptions, place: place(String(i)) };
    });
  }
  const map = mapSchema.safeParse(value);
  if (!map.success || Array.isArray(value)) {
    throw unusable(file, 'write a list of names or of {name, descriptions}, or a map from names to descriptions');
  }
  return Object.entries(map.data).map(
    ([name, own]): Entry => ({ name: name.trim(), descriptions: [own ?? []].flat(), place: place(name) }),
  );
}

function merged(
  entries: readonly Entry[],
  { file, mayRepeat }: { readonly file: string; readonly mayRepeat: boolean },
): PromptClass[] {
  const classes = new Map<string, { readonly place: string; readonly descriptions: string[] }>();
  for (const { name, descriptions, place } of entries) {
    if (name === '') throw unusable(place, 'a class has no name');
    const own = descriptions.map((one) => one.trim());
    if (own.includes('')) throw unusable(place, `a description of ${shown(name)} is empty`);
    const before = classes.get(name);
    const describes = own.length > 0 && before !== undefined && before.descriptions.length > 0;
    if (before !== undefined && !(mayRepeat && describes)) {
      throw unusable(
        place,
        `class ${shown(name)} is there already (${before.place}); take one out, or tell two classes of one name apart by names of their own and describe them`,
      );
    }
    const all = before?.descriptions ?? [];
    for (const one of own) {
      if (all.includes(one)) throw unusable(place, `class ${shown(name)} is described twice as ${shown(one)}`);
      all.push(one);
    }
    if (all.length > DESCRIPTIONS_MAX) {
      throw unusable(place, `class ${shown(name)} has more than ${DESCRIPTIONS_MAX} descriptions`);
    }
    classes.set(name, before ?? { place, descriptions: all });
  }
  if (classes.size === 0) throw unusable(file, 'there is no class in it; write a name per line');
  if (classes.size === 1) throw unusable(file, 'there is a single class; at least two are needed');
  if (classes.size > CLASSES_MAX)
    throw unusable(file, `${classes.size} classes are too many; ${CLASSES_MAX} are the most`);
  return [...classes].map(([name, { descriptions }]) => ({
    name,
    descriptions: descriptions.length > 0 ? descriptions : [name],
  }));
}

function unusable(place: string, reason: string): CoveyError {
  return new CoveyError('INVALID_ARGUMENT', `Cannot use the classes of ${place}: ${reason}`, { fields: { place } });
}

const shown = (text: string) => JSON.stringify(text.length > 60 ? `${text.slice(0, 60)}…` : text);
