import type { ModelConfig } from '../common/config/run-config.ts';
import type { Engine } from '../engine/index.ts';
import { ClipModel } from '../models/clip/clip-model.ts';
import type { LinearClassifier } from '../models/linear/logistic-regression.ts';
import type { Tokenizer } from '../models/tokenizer/tokenizer.ts';
import { encodeClasses } from '../worker/eval/zeroshot.ts';

/** A model of pictures and texts, whole. */
export interface TextModel {
  readonly config: ModelConfig;
  /** Every parameter by open_clip's key. */
  readonly weights: ReadonlyMap<string, Float32Array>;
  readonly tokenizer: Tokenizer;
}

/**
 * The classifier that the text tower makes of the classes' names (Wortsman et al. 2022, §2): on unit-length embeddings of pictures its scores are the
 * model's own zero-shot logits, s·cos.
 * @param templates `{}` stands for the name
 */
export function zeroShotHead(
  { config, weights, tokenizer }: TextModel,
  classNames: readonly string[],
  templates: readonly string[],
  engine: Engine,
): LinearClassifier {
  const model = new ClipModel(config, { seed: 0, precision: 'fp32', init: 'zeros' });
  try {
    model.setWeights(weights);
    const options = { classNames, templates, mean: [0, 0, 0], std: [1, 1, 1] } as const;
    const embeddings_KE = encodeClasses(options, { engine, model, tokenizer });
    const scale = Math.exp(weights.get('logit_scale')![0]!);
    const [classes, dimensions] = [classNames.length, config.embedDim];
    const weights_DK = new Float64Array(dimensions * classes);
    for (let k = 0; k < classes; k++) {
      for (let d = 0; d < dimensions; d++) weights_DK[d * classes + k] = scale * embeddings_KE[k * dimensions + d]!;
    }
    return { dimensions, classes, weights_DK, bias_K: new Float64Array(classes) };
  } finally {
    model.dispose();
  }
}
