import { encodeTexts, type TextModules } from './encode-batch.ts';

/** A template with every `{}` replaced by what the class is called. */
export function fillTemplate(template: string, name: string): string {
  // Not replaceAll with a string: `$&` in a name means something there.
  return template.split('{}').join(name);
}

/** The sum of several templates' embeddings of the same classes, in fp64, so that their order does not show in the classifier. */
export class TemplateSum {
  readonly embedDim: number;
  readonly #sum_KE: Float64Array;

  constructor(classes: number, embedDim: number) {
    this.embedDim = embedDim;
    this.#sum_KE = new Float64Array(classes * embedDim);
  }

  add(embeddings_KE: Float32Array): void {
    for (let i = 0; i < embeddings_KE.length; i++) this.#sum_KE[i]! += embeddings_KE[i]!;
  }

  /**
   * Unit-length weights, [classes, embedDim], of the templates added so far and, where it is given, of one more
   * (Radford et al. 2021, §3.1.4: the mean of unit-length embeddings, brought to unit length again).
   */
  classifier(another_KE?: Float32Array): Float32Array {
    const weights_KE = new Float32Array(this.#sum_KE.length);
    for (let begin = 0; begin < weights_KE.length; begin += this.embedDim) {
      let squares = 0;
      for (let i = begin; i < begin + this.embedDim; i++) {
        const value = this.#sum_KE[i]! + (another_KE?.[i] ?? 0);
        squares += value * value;
      }
      const norm = Math.sqrt(squares) || 1;
      for (let i = begin; i < begin + this.embedDim; i++) {
        weights_KE[i] = (this.#sum_KE[i]! + (another_KE?.[i] ?? 0)) / norm;
      }
    }
    return weights_KE;
  }
}

export interface TextClassifierOptions {
  readonly classNames: readonly string[];
  /** `{}` stands for the class name. Default: the bare name. */
  readonly templates?: readonly string[] | undefined;
  /** Texts encoded at once. Default 128. */
  readonly batch?: number | undefined;
}

/** Unit-length embeddings of the classes, [classes, embedDim]: mean over templates, normalised again. */
export function encodeClasses(
  { classNames, templates = ['{}'], batch }: TextClassifierOptions,
  modules: TextModules,
): Float32Array {
  const sum = new TemplateSum(classNames.length, modules.model.config.embedDim);
  for (const template of templates) {
    const texts = classNames.map((name) => fillTemplate(template, name));
    sum.add(encodeTexts(texts, modules, batch));
  }
  return sum.classifier();
}
