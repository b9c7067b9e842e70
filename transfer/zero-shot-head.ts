import type { ModelConfig } from '../common/config/run-config.ts';
import type { Engine } from '../engine/index.ts';
import { ClipModel } from '../models/clip/clip-model.ts';
import type { LinearClassifier } from '../models/linear/logistic-regression.ts';
import type { Tokenizer } from '../models/tokenizer/tokenizer.ts';
import { fillTemplate, TemplateSum } from '../worker/eval/text-classifier.ts';
import { type EncodeProgress, encodeAllTexts } from './zero-shot/encode-all-texts.ts';

/** A model of pictures and texts, whole. */
export interface TextModel {
  readonly config: ModelConfig;
  /** Every parameter by open_clip's key. */
  readonly weights: ReadonlyMap<string, Float32Array>;
  readonly tokenizer: Tokenizer;
}

/** The model on the engine that is active; the caller disposes it. What a joint objective's weights have besides is left out. */
export function clipModelOf({ config, weights }: Pick<TextModel, 'config' | 'weights'>): ClipModel {
  const model = new ClipModel(config, { seed: 0, precision: 'fp32', init: 'zeros' });
  try {
    const known = new Set([...model.parameters, ...model.buffers].map(({ name }) => name));
    model.setWeights(new Map([...weights].filter(([name]) => known.has(name))));
    return model;
  } catch (thrown) {
    model.dispose();
    throw thrown;
  }
}

export interface HeadWords {
  readonly classNames: readonly string[];
  /** At least one. */
  readonly templates: readonly string[];
}

/**
 * The classifier that the text tower makes of the classes' names (Wortsman et al. 2022, §2): on unit-length embeddings of pictures its scores are the
 * model's own zero-shot logits, s·cos.
 * @param words in the templates `{}` stands for the name; their embeddings are averaged
 */
export async function zeroShotHead(
  text: TextModel,
  { classNames, templates }: HeadWords,
  engine: Engine,
  { signal, onTexts }: EncodeProgress = {},
): Promise<LinearClassifier> {
  const model = clipModelOf(text);
  const modules = { engine, model, tokenizer: text.tokenizer };
  try {
    const sum = new TemplateSum(classNames.length, text.config.embedDim);
    for (const [t, template] of templates.entries()) {
      const texts = classNames.map((name) => fillTemplate(template, name));
      const report = (done: number) => onTexts?.(t * texts.length + done, templates.length * texts.length);
      sum.add(await encodeAllTexts(texts, modules, { signal, onTexts: report }));
    }
    const embeddings_KE = sum.classifier();
    const scale = Math.exp(text.weights.get('logit_scale')![0]!);
    const [classes, dimensions] = [classNames.length, text.config.embedDim];
    const weights_DK = new Float64Array(dimensions * classes);
    for (let k = 0; k < classes; k++) {
      for (let d = 0; d < dimensions; d++) weights_DK[d * classes + k] = scale * embeddings_KE[k * dimensions + d]!;
    }
    return { dimensions, classes, weights_DK, bias_K: new Float64Array(classes) };
  } finally {
    model.dispose();
  }
}
