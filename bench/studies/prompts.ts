import { pickedRows } from '../../common/picked-rows.ts';
import { embedDataset } from '../../transfer/features/embed-dataset.ts';
import { EmbeddingMemory } from '../../transfer/features/embedding-store.ts';
import { studyPrompts } from '../../transfer/prompts/prompt-study.ts';
import type { JudgedPictures } from '../../transfer/prompts/split-judge.ts';
import type { PromptClass } from '../../transfer/zero-shot/class-list.ts';
import type { JointModel } from '../../transfer/zero-shot/joint-model.ts';
import { TEMPLATE_SETS } from '../../transfer/zero-shot/template-sets.ts';
import { ICON_CATEGORIES } from '../../worker/data/pack/icon-source.ts';
import type { BenchTable } from '../support/rows.ts';
import { categoryOf, HELD_OUT, type IconPictures, PIXELS_MAX } from './pretraining/icon-pictures.ts';
import { type StudyOptions, withIcons } from './pretraining/with-icons.ts';
import { CAPTION_SOURCES, CATEGORY_DESCRIPTIONS, factsOf, SEEN_TEMPLATES, withCategory } from './prompts/captions.ts';
import { pretrainedClip } from './prompts/pretrained-clip.ts';

export interface PromptsRow {
  /** Captions that the CLIP was pretrained with. */
  readonly captions: string;
  readonly task: 'name' | 'category';
  readonly classes: number;
  readonly way: string;
  readonly templates: number;
  /** The template, where it is one. */
  readonly template: string | null;
  /** On the pictures that it was chosen by, and on the others: shares of 1. */
  readonly chosenOn: number;
  readonly accuracy: number;
  /** Pictures of `accuracy`. */
  readonly judged: number;
}

/** Of pretraining, per source of captions. */
const SECONDS = 110;
const SECONDS_QUICK = 10;
const ENSEMBLE_MAX = 8;
const TEMPLATES = [...TEMPLATE_SETS['icons']!, ...TEMPLATE_SETS['openai-7']!];

/**
 * What the words are worth: a CLIP pretrained on names alone, and one that saw them in phrases, asked for the names and for the categories of an artist's
 * drawings whom neither saw; by bare names, single templates, all of them, an ensemble that was searched on other pictures, and with descriptions.
 */
export async function run(options: StudyOptions): Promise<PromptsRow[]> {
  const only = options.only?.split(',').map((name) => name.trim());
  return withIcons(options, async ({ engine, icons, seconds = options.quick ? SECONDS_QUICK : SECONDS, seed }) => {
    const rows: PromptsRow[] = [];
    const tasks = await tasksOf(icons);
    const otherTexts = [
      ...TEMPLATES.map((template) => template.replace('{}', '')),
      ...tasks.flatMap(({ classes }) => classes.flatMap(({ descriptions }) => descriptions)),
    ];
    for (const captions of CAPTION_SOURCES) {
      if (only !== undefined && !only.includes(captions.name)) continue;
      const model = await pretrainedClip({ captions, otherTexts, seconds, seed }, { engine, icons });
      try {
        const pictures = await embedded(model, icons);
        for (const task of tasks) rows.push(...(await ask(task, { captions: captions.name, seed }, model, pictures)));
      } finally {
        model.dispose();
      }
    }
    return rows;
  });
}

interface Task {
  readonly task: PromptsRow['task'];
  readonly classes: readonly PromptClass[];
  /** Class of each picture of the held-out artist by its sample's id; absent ones are not asked for. */
  readonly labelOf: ReadonlyMap<string, number>;
}

/** The names, described by their categories; and the categories, described by what belongs to them. */
async function tasksOf({ test }: IconPictures): Promise<Task[]> {
  const names = new Map<string, PromptClass>();
  const nameOf = new Map<string, string>();
  const categories = new Map<string, number>();
  for await (const located of test.samples()) {
    const { name, category } = factsOf(located);
    nameOf.set(located.sampleId, name);
    names.set(name, { name, descriptions: [category === undefined ? name : withCategory(name, category)] });
    const index = categoryOf(located);
    if (index >= 0) categories.set(located.sampleId, index);
  }
  const order = new Map([...names.keys()].map((name, i) => [name, i]));
  return [
    {
      task: 'name',
      classes: [...names.values()],
      labelOf: new Map([...nameOf].map(([id, name]) => [id, order.get(name)!])),
    },
    {
      task: 'category',
      classes: ICON_CATEGORIES.map((name) => ({ name, descriptions: CATEGORY_DESCRIPTIONS[name]! })),
      labelOf: categories,
    },
  ];
}

interface EmbeddedPictures {
  readonly keys: readonly string[];
  readonly values: Float32Array;
}

async function embedded(model: JointModel, { test, cache }: IconPictures): Promise<EmbeddedPictures> {
  const folder = new EmbeddingMemory({ columns: model.columns, normalised: true });
  await embedDataset({ pixelsMax: PIXELS_MAX }, { encoder: model, dataset: test, cache: cache.test, folder });
  const { keys, features } = await folder.readAll();
  return { keys: keys.map(({ key }) => key), values: features.values };
}

async function ask(
  { task, classes, labelOf }: Task,
  { captions, seed }: { readonly captions: string; readonly seed: number },
  model: JointModel,
  { keys, values }: EmbeddedPictures,
): Promise<PromptsRow[]> {
  const { columns } = model;
  const asked = [...keys.keys()].filter((row) => labelOf.has(keys[row]!));
  const pictures: JudgedPictures = {
    embeddings: { values_NE: pickedRows(values, columns, asked), columns },
    labels_N: Int32Array.from(asked, (row) => labelOf.get(keys[row]!)!),
  };
  const study = await studyPrompts(
    { classes, templates: TEMPLATES, descriptions: 'name', validation: 0.5, ensembleMax: ENSEMBLE_MAX, seed },
    { model, pictures },
  );
  process.stderr.write(
    `${captions}, ${task}: searched ${study.ensemble.map((one) => JSON.stringify(one)).join(', ')}\n`,
  );
  return study.ways.map(({ name, templates, searchAccuracy, judgedAccuracy }) => ({
    captions,
    task,
    classes: classes.length,
    way: name,
    templates: templates.length,
    template: templates.length === 1 ? templates[0]! : null,
    chosenOn: searchAccuracy,
    accuracy: judgedAccuracy,
    judged: study.split.judge.length,
  }));
}

/** A table for people: a line per task and way, a column per pretraining. */
export function table(rows: readonly PromptsRow[]): BenchTable {
  const sources = [...new Set(rows.map(({ captions }) => captions))];
  const keys = [...new Set(rows.map(({ task, way }) => `${task}\n${way}`))];
  const cell = (row: PromptsRow | undefined): string => {
    if (row === undefined) return '–';
    const { accuracy, judged, template, templates } = row;
    const error = Math.sqrt((accuracy * (1 - accuracy)) / judged);
    return `${(100 * accuracy).toFixed(1)} ± ${(100 * error).toFixed(1)} %  ${template ?? `(${templates})`}`;
  };
  const judged = (task: PromptsRow['task']) => rows.find((row) => row.task === task);
  const counts = (['name', 'category'] as const).flatMap((task) => {
    const row = judged(task);
    return row === undefined ? [] : [`${task}: ${row.classes} classes, ${row.judged} pictures to judge by`];
  });
  return {
    head: ['task', 'way', ...sources.map((source) => `pretrained on ${source}`)],
    rows: keys.map((key) => {
      const [task, way] = key.split('\n') as [string, string];
      const own = rows.filter((row) => row.task === task && row.way === way);
      return [task, way, ...sources.map((source) => cell(own.find(({ captions }) => captions === source)))];
    }),
    notes: [
      `accuracy on one half of ${HELD_OUT}'s drawings, an artist that pretraining never saw; templates and ensembles are chosen by the other half; ± one standard error`,
      ...counts,
      `${TEMPLATES.length} templates, of which pretraining on phrases saw ${SEEN_TEMPLATES.map((one) => JSON.stringify(one)).join(', ')} and names followed by their category`,
      'descriptions: of a name, the name followed by its category; of a category, words for what belongs to it',
    ],
  };
}
