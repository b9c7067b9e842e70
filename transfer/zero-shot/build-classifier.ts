import type { PromptClassifier } from '../../worker/eval/classify.ts';
import { TemplateSum } from '../../worker/eval/text-classifier.ts';
import type { PromptClass } from './class-list.ts';
import type { EncodeProgress } from './encode-all-texts.ts';
import type { JointModel } from './joint-model.ts';
import { type DescriptionMode, PromptSpace } from './prompt-space.ts';
import { TextEmbeddings } from './text-embeddings.ts';

export interface ClassifierBuilderOptions {
  readonly classes: readonly PromptClass[];
  readonly descriptions: DescriptionMode;
  /** Where embeddings of texts are kept. Default: nowhere. */
  readonly textsFolder?: string | undefined;
}

export interface BuildOptions {
  readonly signal?: AbortSignal | undefined;
  /** How many texts are done, those that were there already included. */
  readonly onTexts?: ((done: number, total: number) => void) | undefined;
}

/** Makes classifiers of templates, for a set of classes that is described in one way. */
export class ClassifierBuilder {
  readonly texts: TextEmbeddings;
  readonly #space: PromptSpace;
  readonly #columns: number;

  constructor({ classes, descriptions, textsFolder }: ClassifierBuilderOptions, model: JointModel) {
    this.#space = new PromptSpace(classes, descriptions);
    this.#columns = model.columns;
    this.texts = new TextEmbeddings({ phrases: this.#space.phrases, folder: textsFolder }, model);
  }

  /** Of an ensemble: each class the mean over templates of unit-length embeddings, brought to unit length again. */
  async classifier(templates: readonly string[], { signal, onTexts }: BuildOptions = {}): Promise<PromptClassifier> {
    const sum = this.sum();
    const phrases = this.texts.phrases.length;
    for (const [i, template] of templates.entries()) {
      const report = (done: number) => onTexts?.(i * phrases + done, templates.length * phrases);
      sum.add(await this.vectorsOf(template, { signal, onTexts: report }));
      report(phrases);
    }
    return this.of(sum);
  }

  /** For ensembles that grow: an empty sum, what is added to it for a template, and the classifier of it. */
  sum(): TemplateSum {
    return new TemplateSum(this.#space.vectors, this.#columns);
  }

  async vectorsOf(template: string, progress?: EncodeProgress): Promise<Float32Array> {
    return this.#space.vectorsOf(await this.texts.of(template, progress));
  }

  /** @param another what one template more would add */
  of(sum: TemplateSum, another?: Float32Array): PromptClassifier {
    return this.#space.classifier(sum.classifier(another));
  }
}
