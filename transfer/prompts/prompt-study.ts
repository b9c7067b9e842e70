import { ClassifierBuilder } from '../zero-shot/build-classifier.ts';
import type { PromptClass } from '../zero-shot/class-list.ts';
import type { JointModel } from '../zero-shot/joint-model.ts';
import { DESCRIPTION_MODES, type DescriptionMode } from '../zero-shot/prompt-space.ts';
import { type EnsembleScorer, type EnsembleSearch, searchEnsemble } from './ensemble-search.ts';
import { type Sensitivity, SensitivityCounter } from './sensitivity.ts';
import { type JudgedPictures, type SplitAccuracy, SplitJudge } from './split-judge.ts';
import { type PictureSplit, splitPictures } from './split-pictures.ts';

export interface PromptStudyOptions {
  readonly classes: readonly PromptClass[];
  readonly templates: readonly string[];
  /** What stands for a class while templates are compared. */
  readonly descriptions: DescriptionMode;
  /** Share of the pictures that templates are chosen by; the others judge. */
  readonly validation: number;
  /** Templates of an ensemble at most. */
  readonly ensembleMax: number;
  readonly seed: number;
}

export interface PromptStudyModules {
  readonly model: JointModel;
  readonly pictures: JudgedPictures;
  /** Where embeddings of texts are kept. Default: nowhere. */
  readonly textsFolder?: string | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((what: 'texts' | 'templates' | 'ensembles', done: number, total: number) => void) | undefined;
}

export interface TemplateResult extends SplitAccuracy {
  readonly template: string;
  /** On all pictures. */
  readonly accuracy: number;
  /** Share of the pictures that it classifies otherwise than all templates together. */
  readonly disagreement: number;
  /** Texts that are longer than the model's context. */
  readonly cutTexts: number;
}

/** One way to make a classifier. */
export interface PromptWay extends SplitAccuracy {
  readonly name: string;
  readonly descriptions: DescriptionMode;
  readonly templates: readonly string[];
}

export interface PromptStudy {
  readonly split: PictureSplit;
  /** In the order given. */
  readonly templates: readonly TemplateResult[];
  /** What there is to choose among; whatever was chosen was chosen by the search pictures alone. */
  readonly ways: readonly PromptWay[];
  readonly search: EnsembleSearch;
  /** The templates that the search chose, in the order it took them. */
  readonly ensemble: readonly string[];
  readonly sensitivity: Sensitivity;
  /** Predictions of all templates together, [N]. */
  readonly reference_N: Int32Array;
}

/**
 * Which templates a model wants: accuracy of each, the best ensemble by held-out search, and how much hangs on the choice. Pictures are embedded already;
 * of texts one template is looked at after the other, so memory grows with classes or templates, never with their product.
 */
export async function studyPrompts(options: PromptStudyOptions, modules: PromptStudyModules): Promise<PromptStudy> {
  const { templates, classes, descriptions } = options;
  const { model, pictures, textsFolder, signal, onProgress } = modules;
  const split = splitPictures(pictures.labels_N, options.validation, options.seed);
  const judge = new SplitJudge(pictures, split, { engine: model.engine, signal });
  const builder = new ClassifierBuilder({ classes, descriptions, textsFolder }, model);
  const all = await builder.classifier(templates, {
    signal,
    onTexts: (done, total) => onProgress?.('texts', done, total),
  });
  const reference_N = await judge.predict(all);
  const classNames = classes.map(({ name }) => name);
  const counter = new SensitivityCounter({ labels_N: pictures.labels_N, classNames, reference_N });
  const results: TemplateResult[] = [];
  for (const [i, template] of templates.entries()) {
    const predicted_N = await judge.predict(await builder.classifier([template], { signal }));
    const disagreement = counter.add(template, predicted_N);
    const cutTexts = builder.texts.cutTexts(template);
    results.push({ template, ...judge.accuracies(predicted_N), disagreement, cutTexts });
    onProgress?.('templates', i + 1, templates.length);
  }
  const search = await searchEnsemble(
    {
      templates: templates.length,
      sizeMax: options.ensembleMax,
      onTrial: (done, total) => onProgress?.('ensembles', done, total),
    },
    ensembleScorer(templates, builder, judge, signal),
  );
  const ensemble = search.steps.slice(0, search.size).map(({ template }) => templates[template]!);
  const ways = await compareWays({ results, ensemble, reference_N }, options, modules, judge);
  return { split, templates: results, ways, search, ensemble, sensitivity: counter.result(), reference_N };
}

function ensembleScorer(
  templates: readonly string[],
  builder: ClassifierBuilder,
  judge: SplitJudge,
  signal: AbortSignal | undefined,
): EnsembleScorer {
  const sum = builder.sum();
  return {
    accuracyWith: async (t) =>
      judge.accuracyOn('search', builder.of(sum, await builder.vectorsOf(templates[t]!, { signal }))),
    take: async (t) => {
      sum.add(await builder.vectorsOf(templates[t]!, { signal }));
      return judge.accuracyOn('judge', builder.of(sum));
    },
  };
}

interface Found {
  readonly results: readonly TemplateResult[];
  readonly ensemble: readonly string[];
  readonly reference_N: Int32Array;
}

const IN_WORDS: Readonly<Record<DescriptionMode, string>> = {
  name: 'names alone',
  average: 'descriptions averaged',
  nearest: 'nearest description',
};

/** What was found beside what needs no search, and the ensemble where classes are described in other ways. */
async function compareWays(
  { results, ensemble, reference_N }: Found,
  { classes, templates, descriptions }: PromptStudyOptions,
  { model, textsFolder, signal }: PromptStudyModules,
  judge: SplitJudge,
): Promise<PromptWay[]> {
  const measured = async (name: string, mode: DescriptionMode, chosen: readonly string[]): Promise<PromptWay> => {
    const builder = new ClassifierBuilder({ classes, descriptions: mode, textsFolder }, model);
    const predicted_N = await judge.predict(await builder.classifier(chosen, { signal }));
    return way(name, mode, chosen, judge.accuracies(predicted_N));
  };
  const extreme = (name: string, sign: number): PromptWay => {
    const found = results.reduce((best, one) => (sign * one.searchAccuracy > sign * best.searchAccuracy ? one : best));
    return way(name, descriptions, [found.template], found);
  };
  const ways = [
    await measured('bare names', 'name', ['{}']),
    extreme('worst template', -1),
    extreme('best template', 1),
    way('all templates', descriptions, templates, judge.accuracies(reference_N)),
    await measured('searched ensemble', descriptions, ensemble),
  ];
  const kindOf = describedAs(classes);
  const shown = new Set([kindOf(descriptions)]);
  for (const mode of DESCRIPTION_MODES) {
    if (shown.has(kindOf(mode))) continue;
    shown.add(kindOf(mode));
    ways.push(await measured(`searched ensemble, ${IN_WORDS[mode]}`, mode, ensemble));
  }
  return ways;
}

/** What a mode comes to for these classes: without descriptions all are the name, with one per class its average is the nearest. */
function describedAs(classes: readonly PromptClass[]): (mode: DescriptionMode) => DescriptionMode {
  const isDescribed = classes.some(({ name, descriptions }) => descriptions.length > 1 || descriptions[0] !== name);
  const hasSeveral = classes.some(({ descriptions }) => descriptions.length > 1);
  return (mode) => {
    if (!isDescribed) return 'name';
    return mode === 'nearest' && !hasSeveral ? 'average' : mode;
  };
}

function way(
  name: string,
  descriptions: DescriptionMode,
  templates: readonly string[],
  { searchAccuracy, judgedAccuracy }: SplitAccuracy,
): PromptWay {
  return { name, descriptions, templates, searchAccuracy, judgedAccuracy };
}
