import type { LocatedSample } from '../../../worker/data/dataset.ts';
import type { SampleSet } from '../../../worker/data/sample-set.ts';

/** Where the captions of a pretraining come from. */
export interface CaptionSource {
  readonly name: string;
  /** A drawing's captions, one of which is drawn at each showing. */
  readonly captionsOf: (name: string, category: string | undefined) => readonly string[];
}

/** Of the templates that are compared, those that this pretraining sees. */
export const SEEN_TEMPLATES = ['{}', 'an icon of {}', 'a drawing of {}', 'the {} emoji'];

export const CAPTION_SOURCES: readonly CaptionSource[] = [
  { name: 'names', captionsOf: (name) => [name] },
  {
    name: 'phrases',
    captionsOf: (name, category) => [
      ...SEEN_TEMPLATES.map((template) => template.replace('{}', () => name)),
      ...(category === undefined ? [] : [withCategory(name, category)]),
    ],
  },
];

/** `crane, animals & nature`: what a name means, where it may mean several things. */
export function withCategory(name: string, category: string): string {
  return `${name}, ${category.toLowerCase()}`;
}

/** Name and category of a drawing, as its set has them. */
export function factsOf({ record }: LocatedSample): { readonly name: string; readonly category: string | undefined } {
  const category = record.meta?.['category'];
  return { name: record.captions[0] ?? '', category: category === undefined ? undefined : String(category) };
}

/** The drawings with other captions. */
export function recaptioned(samples: SampleSet, { captionsOf }: CaptionSource): SampleSet {
  return {
    sha256: samples.sha256,
    sampleCount: samples.sampleCount,
    classes: samples.classes,
    rangeOf: (sampleIndex) => samples.rangeOf(sampleIndex),
    locate: async (sampleIndex, signal) => {
      const located = await samples.locate(sampleIndex, signal);
      const { name, category } = factsOf(located);
      return { ...located, record: { ...located.record, captions: [...captionsOf(name, category)] } };
    },
  };
}

/**
 * What each category is about, in words of its own: the categories are called by what they have in common, which is no name that a drawing has. Written
 * without a look at the drawings.
 */
export const CATEGORY_DESCRIPTIONS: Readonly<Record<string, readonly string[]>> = {
  Activities: ['sports ball', 'trophy', 'game', 'party', 'ticket', 'medal'],
  'Animals & Nature': ['animal', 'bird', 'fish', 'flower', 'tree', 'cat face'],
  Flags: ['flag', 'flag of a country'],
  'Food & Drink': ['fruit', 'vegetable', 'bread', 'cake', 'drink', 'meal'],
  Objects: ['tool', 'clothes', 'book', 'computer', 'musical instrument', 'money'],
  'People & Body': ['man', 'woman', 'hand', 'person walking', 'family', 'worker'],
  'Smileys & Emotion': ['smiling face', 'sad face', 'angry face', 'heart', 'face with tears'],
  Symbols: ['arrow', 'button', 'sign', 'zodiac sign', 'number', 'square'],
  'Travel & Places': ['car', 'building', 'train', 'ship', 'mountain', 'clock'],
};
