import type { PromptClassifier } from '../../worker/eval/classify.ts';
import type { PromptClass } from './class-list.ts';

/**
 * What stands for a class in the templates: its name; all its descriptions, averaged to one vector; or all its descriptions, of which the one nearest to
 * a picture counts.
 */
export const DESCRIPTION_MODES = ['name', 'average', 'nearest'] as const;
export type DescriptionMode = (typeof DESCRIPTION_MODES)[number];

/** How the texts of a set of classes become a classifier. Legend: K classes, P phrases, V vectors (K or P), E numbers of an embedding. */
export class PromptSpace {
  readonly classes: number;
  /** What goes into a template, class after class, [P]. */
  readonly phrases: readonly string[];
  /** Vectors of a classifier. */
  readonly vectors: number;
  readonly #mode: DescriptionMode;
  readonly #classOf_P: Int32Array;
  readonly #count_K: Int32Array;

  constructor(classes: readonly PromptClass[], mode: DescriptionMode) {
    const own = classes.map(({ name, descriptions }) => (mode === 'name' ? [name] : descriptions));
    this.#mode = mode;
    this.classes = classes.length;
    this.phrases = own.flat();
    this.#classOf_P = Int32Array.from(own.flatMap((phrases, k) => phrases.map(() => k)));
    this.#count_K = Int32Array.from(own, (phrases) => phrases.length);
    this.vectors = mode === 'nearest' ? this.phrases.length : classes.length;
  }

  /** One template's embeddings of the phrases, [P,E], as what is summed over templates, [V,E]. */
  vectorsOf(phrases_PE: Float32Array): Float32Array {
    if (this.vectors === this.phrases.length) return phrases_PE;
    const columns = phrases_PE.length / this.phrases.length;
    const means_KE = new Float32Array(this.classes * columns);
    this.#classOf_P.forEach((k, p) => {
      const count = this.#count_K[k]!;
      for (let e = 0; e < columns; e++) means_KE[k * columns + e]! += phrases_PE[p * columns + e]! / count;
    });
    return means_KE;
  }

  /** @param vectors_VE of unit length */
  classifier(vectors_VE: Float32Array): PromptClassifier {
    const { classes } = this;
    return this.#mode === 'nearest' ? { classes, vectors_VE, classOf_V: this.#classOf_P } : { classes, vectors_VE };
  }
}
