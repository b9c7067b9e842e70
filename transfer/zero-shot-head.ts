import type { ModelConfig } from '../common/config/run-config.ts';
import type { Engine } from '../engine/index.ts';
import { ClipModel } from '../models/clip/clip-model.ts';
import type { LinearClassifier } from '../models/linear/logistic-regression.ts';
import type { Tokenizer } from '../models/tokenizer/tokenizer.ts';
import { encodeClasses } from '../worker/eval/text-classifier.ts';

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

/**
 * The classifier that the text tower makes of the classes' names (Wortsman et al. 2022, §2): on unit-length embeddings of pictures its scores are the
 * model's own zero-shot logits, s·cos.
 * @param templates `{}` stands for the name
 */
export function zeroShotHead(
  text: TextModel,
  classNames: readonly string[],
  templates: readonly string[],
  engine: Engine,
): LinearClassifier {
  const model = clipModelOf(text);
  try {
    const embeddings_KE = encodeClasses({ classNames, templates }, { engine, model, tokenizer: text.tokenizer });
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
