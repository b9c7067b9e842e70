import type { ModelConfig } from '../../common/config/run-config.ts';
import { parameterSpecs } from '../clip/parameter-shapes.ts';
import { towerPlace } from '../clip/tower-place.ts';
import { constant, normal, type ParameterSpec } from '../parameter-spec.ts';

/** BERT's `initializer_range`. */
const drawn = normal(0.02);

/** CLIP's text tower up to `ln_final`, under open_clip's keys. */
export function textBackboneSpecs(model: ModelConfig): ParameterSpec[] {
  return parameterSpecs(model, 0).filter(({ name }) => {
    const place = towerPlace(name);
    return place?.tower === 'text' && place.part !== 'projection';
  });
}

/**
 * The text tower and, under `cloze.`, what guesses with it and is dropped afterwards: the vector that stands for a hidden token, BERT's
 * transform (dense, GELU, norm), and the output's bias; its weights too unless they are the token embedding.
 */
export function clozeParameterSpecs(model: ModelConfig, { tied }: { readonly tied: boolean }): ParameterSpec[] {
  const { width, vocabSize } = model.text;
  return [
    ...textBackboneSpecs(model),
    { name: 'cloze.mask_embedding', shape: [width], initial: drawn },
    { name: 'cloze.dense.weight', shape: [width, width], initial: drawn },
    { name: 'cloze.dense.bias', shape: [width], initial: constant(0) },
    { name: 'cloze.norm.weight', shape: [width], initial: constant(1) },
    { name: 'cloze.norm.bias', shape: [width], initial: constant(0) },
    ...(tied ? [] : [{ name: 'cloze.decoder.weight', shape: [vocabSize, width], initial: drawn }]),
    { name: 'cloze.bias', shape: [vocabSize], initial: constant(0) },
  ];
}
