import { pickedRows } from '../../common/picked-rows.ts';
import {
  type ClassifyModules,
  type Embeddings,
  type PromptClassifier,
  predictClasses,
} from '../../worker/eval/classify.ts';
import type { PictureSplit } from './split-pictures.ts';

/** Accuracies on the pictures that are chosen by, and on those that judge. */
export interface SplitAccuracy {
  readonly searchAccuracy: number;
  readonly judgedAccuracy: number;
}

export interface JudgedPictures {
  readonly embeddings: Embeddings;
  readonly labels_N: Int32Array;
}

/** Judges classifiers on the two sides of a split, each in one piece: whatever the question, the bits are the same. */
export class SplitJudge {
  readonly #labels_N: Int32Array;
  readonly #sides: Readonly<Record<keyof PictureSplit, { readonly rows: Int32Array; readonly embeddings: Embeddings }>>;
  readonly #modules: ClassifyModules;

  constructor({ embeddings, labels_N }: JudgedPictures, split: PictureSplit, modules: ClassifyModules) {
    const { values_NE, columns } = embeddings;
    const side = (rows: Int32Array) => ({
      rows,
      embeddings: { values_NE: pickedRows(values_NE, columns, rows), columns },
    });
    this.#labels_N = labels_N;
    this.#sides = { search: side(split.search), judge: side(split.judge) };
    this.#modules = modules;
  }

  /** The class of highest score of every picture, [N]. */
  async predict(classifier: PromptClassifier): Promise<Int32Array> {
    const predicted_N = new Int32Array(this.#labels_N.length);
    for (const { rows, embeddings } of Object.values(this.#sides)) {
      const predicted = await predictClasses(embeddings, classifier, this.#modules);
      rows.forEach((row, i) => {
        predicted_N[row] = predicted[i]!;
      });
    }
    return predicted_N;
  }

  async accuracyOn(side: keyof PictureSplit, classifier: PromptClassifier): Promise<number> {
    const { rows, embeddings } = this.#sides[side];
    const predicted = await predictClasses(embeddings, classifier, this.#modules);
    return predicted.filter((one, i) => one === this.#labels_N[rows[i]!]).length / rows.length;
  }

  accuracies(predicted_N: Int32Array): SplitAccuracy & { readonly accuracy: number } {
    const isRight = (row: number) => predicted_N[row] === this.#labels_N[row];
    const share = (rows: Int32Array) => rows.filter(isRight).length / rows.length;
    return {
      accuracy: predicted_N.filter((_, row) => isRight(row)).length / predicted_N.length,
      searchAccuracy: share(this.#sides.search.rows),
      judgedAccuracy: share(this.#sides.judge.rows),
    };
  }
}
