import type { ModelConfig } from '../../common/config/run-config.ts';
import { constant, normal, normSpecs, type ParameterSpec } from '../parameter-spec.ts';
import { newBackbone } from '../vision/backbone.ts';
import { blockSpecs, textBlockInit } from './transformer-shapes.ts';

export { elementCount, type Initial, type ParameterSpec } from '../parameter-spec.ts';

function textSpecs({ text, embedDim }: ModelConfig): ParameterSpec[] {
  const { width, layers, contextLength, vocabSize, mlpRatio } = text;
  const hidden = width * mlpRatio;
  const blocks = Array.from({ length: layers }, (_, i) =>
    blockSpecs(`transformer.resblocks.${i}`, width, hidden, textBlockInit(width, hidden, layers)),
  );
  return [
    { name: 'token_embedding.weight', shape: [vocabSize, width], initial: normal(0.02) },
    { name: 'positional_embedding', shape: [contextLength, width], initial: normal(0.01) },
    ...blocks.flat(),
    ...normSpecs('ln_final', width),
    { name: 'text_projection', shape: [width, embedDim], initial: normal(width ** -0.5) },
  ];
}

/**
 * Every parameter of the model in its one stable order (that of gradients, checkpoints and digests), with open_clip's key, PyTorch's
 * shape and how it starts (open_clip `transformer.py`, PyTorch defaults). Allocates nothing.
 * @param logitScaleInit natural logarithm; CLIP's is ln(1/0.07)
 */
export function parameterSpecs(config: ModelConfig, logitScaleInit: number): ParameterSpec[] {
  return [
    ...newBackbone(config.vision).parameterSpecs(config.embedDim),
    ...textSpecs(config),
    { name: 'logit_scale', shape: [], initial: constant(logitScaleInit) },
    ...(config.initLogitBias === undefined
      ? []
      : [{ name: 'logit_bias', shape: [], initial: constant(config.initLogitBias) }]),
  ];
}

/** What belongs to the model and no gradient changes: running statistics, fixed positions. Empty for CLIP's own ViT. */
export function bufferSpecs({ vision }: ModelConfig): ParameterSpec[] {
  return newBackbone(vision).bufferSpecs();
}

interface NamedShape {
  readonly name: string;
  readonly shape: readonly number[];
}

/** Names and shapes only, for counting and planning memory. */
export function parameterShapes(config: ModelConfig): NamedShape[] {
  return parameterSpecs(config, 0).map(({ name, shape }) => ({ name, shape }));
}

/** Of all that an embedding is computed from, what gradients change and what they do not: the content of a file of weights. */
export function weightShapes(config: ModelConfig): NamedShape[] {
  return [...parameterShapes(config), ...bufferSpecs(config).map(({ name, shape }) => ({ name, shape }))];
}
