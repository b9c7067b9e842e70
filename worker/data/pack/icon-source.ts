import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import sharp from 'sharp';
import { z } from 'zod';
import { packageRoot } from '../../../common/built-module.ts';
import { CoveyError } from '../../../common/errors.ts';
import { byCodePoint, type SourceItem } from './candidate.ts';
import { wordsOf } from './folder-source.ts';

/** One drawing of an Iconify icon set. */
export interface IconSample {
  readonly set: string;
  readonly name: string;
  /** The name in words. */
  readonly caption: string;
  /** Its group among the emoji of Unicode, one of `ICON_CATEGORIES`; absent where the set's own grouping names none. */
  readonly category?: string;
  /** A whole SVG document, `side`×`side`. */
  readonly svg: string;
}

const box = {
  left: z.number().optional(),
  top: z.number().optional(),
  width: z.number().optional(),
  height: z.number().optional(),
};

/** IconifyJSON as far as it is used; aliases are other names (or turns) of drawings that are already there. */
const iconSetSchema = z.object({
  prefix: z.string(),
  ...box,
  icons: z.record(
    z.string(),
    z.object({
      body: z.string(),
      ...box,
      hidden: z.boolean().optional(),
    }),
  ),
});

/** Groups of Unicode's emoji-test.txt: what an icon's `category` is. */
export const ICON_CATEGORIES = [
  'Activities',
  'Animals & Nature',
  'Flags',
  'Food & Drink',
  'Objects',
  'People & Body',
  'Smileys & Emotion',
  'Symbols',
  'Travel & Places',
] as const;

/** EmojiOne's names from before the groups. Its `People` are both people and smileys, so they have no category. */
const OLDER_CATEGORIES: Readonly<Record<string, string>> = {
  Food: 'Food & Drink',
  Nature: 'Animals & Nature',
  Travel: 'Travel & Places',
};

const metadataSchema = z.object({ categories: z.record(z.string(), z.array(z.string())).default({}) });

const infoSchema = z.object({
  name: z.string(),
  author: z.object({ name: z.string() }),
  license: z.object({ title: z.string(), spdx: z.string().optional() }),
});

export interface IconSetOptions {
  /** Side of the rendered pictures, pixels. */
  readonly side: number;
  /** Sets to leave out, e.g. the one held out for evaluation. */
  readonly exclude?: readonly string[];
  /** `category`: a sample's label is its category; one without is packed without label. Default: no labels. */
  readonly labels?: 'category';
  /** Leaves out every drawing for which it returns false. Default: all are kept. */
  readonly keep?: (sample: IconSample) => boolean;
  /** Folder whose node_modules hold `@iconify-json/*`. Default: covey's own. */
  readonly root?: string;
}

/**
 * All drawings of the named sets, by set and then by name. Hidden (withdrawn) icons and aliases are left out: they are
 * duplicates. Throws NOT_FOUND where a set is not installed.
 */
export function iconSetSamples(sets: readonly string[], options: IconSetOptions): IconSample[] {
  const wanted = sets.filter((set) => !(options.exclude ?? []).includes(set));
  return wanted.flatMap((set) => {
    const parsed = iconSetSchema.parse(readSetFile(set, 'icons.json', options.root));
    const categories = iconCategories(set, options.root);
    return Object.entries(parsed.icons)
      .filter(([, icon]) => icon.hidden !== true)
      .sort(([a], [b]) => byCodePoint(a, b))
      .map(([name, icon]) => ({
        set,
        name,
        caption: wordsOf(name),
        ...categoryOf(categories.get(name)),
        svg: svgDocument(icon.body, viewOf(parsed, icon), options.side),
      }));
  });
}

/** Who drew a set and under which licence: `Noto Emoji by Google Inc, Apache 2.0 (Apache-2.0)`. */
export function iconSetCredit(set: string, root?: string): string {
  const info = infoSchema.parse(readSetFile(set, 'info.json', root));
  const spdx = info.license.spdx === undefined ? '' : ` (${info.license.spdx})`;
  return `${info.name} by ${info.author.name}, ${info.license.title}${spdx}`;
}

/** A drawing as PNG on white. */
export async function renderIcon(sample: IconSample): Promise<Uint8Array> {
  return sharp(Buffer.from(sample.svg), { failOn: 'error' }).flatten({ background: '#ffffff' }).png().toBuffer();
}

/** The sets as candidates for `pack`. */
export function* iconSource(sets: readonly string[], options: IconSetOptions): Generator<SourceItem> {
  for (const sample of iconSetSamples(sets, options)) {
    if (options.keep?.(sample) === false) continue;
    yield {
      kind: 'candidate',
      name: `${sample.set}:${sample.name}`,
      captions: [sample.caption],
      ...(options.labels === 'category' && sample.category !== undefined ? { label: sample.category } : {}),
      meta: { set: sample.set, name: sample.name, ...categoryOf(sample.category) },
      trusted: true,
      load: () => renderIcon(sample),
    };
  }
}

/** Name → category. Where a set lists a drawing twice, the first place counts. */
function iconCategories(set: string, root: string | undefined): Map<string, string> {
  const { categories } = metadataSchema.parse(readSetFile(set, 'metadata.json', root));
  const found = new Map<string, string>();
  for (const [title, names] of Object.entries(categories)) {
    const category = ICON_CATEGORIES.find(
      (one) => one === (OLDER_CATEGORIES[title] ?? title) || withoutAnd(one) === title,
    );
    if (category === undefined) continue;
    for (const name of names) if (!found.has(name)) found.set(name, category);
  }
  return found;
}

/** OpenMoji writes `Animals Nature`. */
const withoutAnd = (category: string) => category.replace(' & ', ' ');

const categoryOf = (category: string | undefined) => (category === undefined ? {} : { category });

interface IconView {
  readonly left?: number | undefined;
  readonly top?: number | undefined;
  readonly width?: number | undefined;
  readonly height?: number | undefined;
}

/** An icon's own box; what it leaves out is the set's. 16 is Iconify's default. */
function viewOf(set: IconView, icon: IconView): Required<IconView> {
  return {
    left: icon.left ?? set.left ?? 0,
    top: icon.top ?? set.top ?? 0,
    width: icon.width ?? set.width ?? 16,
    height: icon.height ?? set.height ?? 16,
  };
}

function svgDocument(body: string, view: Required<IconView>, side: number): string {
  const viewBox = `${view.left} ${view.top} ${view.width} ${view.height}`;
  return `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="${side}" height="${side}" viewBox="${viewBox}">${body}</svg>`;
}

function readSetFile(set: string, file: string, root = packageRoot()): unknown {
  if (!/^[a-z0-9][a-z0-9-]*$/.test(set))
    throw new CoveyError('INVALID_ARGUMENT', `Cannot use icon set ${JSON.stringify(set)}: not the name of one`);
  const require = createRequire(path.join(root, 'package.json'));
  let found: string;
  try {
    found = require.resolve(`@iconify-json/${set}/${file}`);
  } catch (thrown) {
    throw new CoveyError(
      'NOT_FOUND',
      `Cannot use icon set ${set}: @iconify-json/${set} is not installed; run npm install @iconify-json/${set}`,
      { cause: thrown },
    );
  }
  return JSON.parse(readFileSync(found, 'utf8'));
}
