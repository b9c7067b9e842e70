import type { ModelConfig, VisionConfig } from '../../common/config/run-config.ts';
import { weightShapes } from '../clip/parameter-shapes.ts';
import type { Tokenizer } from '../tokenizer/tokenizer.ts';
import { backboneSpecs } from '../vision/backbone.ts';
import type { ParameterShape, PreprocessConfig, Weights } from './weights.ts';

/** A CLIP with all that its use needs: what loaders give, exporters write and transfer starts from. */
export interface PretrainedClip {
  readonly kind: 'clip';
  readonly config: ModelConfig;
  /** By open_clip key. */
  readonly weights: Weights;
  readonly preprocess: PreprocessConfig;
  readonly tokenizer: Tokenizer;
}

/** An image tower without its projection, as objectives without text train it: its output is the feature that transfer starts from. */
export interface PretrainedBackbone {
  readonly kind: 'backbone';
  readonly vision: VisionConfig;
  readonly quickGelu: boolean;
  /** Keys `visual.*`, without the projection. */
  readonly weights: Weights;
  readonly preprocess: PreprocessConfig;
}

export type Pretrained = PretrainedClip | PretrainedBackbone;

/** All of a model but its weights. */
export type PretrainedSettings = Omit<PretrainedClip, 'weights'> | Omit<PretrainedBackbone, 'weights'>;

/** Names and shapes of a model's weights, in parameter order. */
export function shapesOf(model: PretrainedSettings): ParameterShape[] {
  if (model.kind === 'clip') return weightShapes(model.config);
  return backboneSpecs(model.vision).map(({ name, shape }) => ({ name, shape }));
}

export function visionOf(model: PretrainedSettings): VisionConfig {
  return model.kind === 'clip' ? model.config.vision : model.vision;
}

export function usesQuickGelu(model: PretrainedSettings): boolean {
  return model.kind === 'clip' ? model.config.quickGelu : model.quickGelu;
}

/** The image tower alone, without its projection to the shared space: what probes, fine-tuning and adapters build on. */
export function backboneOf(model: Pretrained): PretrainedBackbone {
  if (model.kind === 'backbone') return model;
  const { vision, quickGelu } = model.config;
  return {
    kind: 'backbone',
    vision,
    quickGelu,
    weights: backboneWeights(vision, model.weights),
    preprocess: model.preprocess,
  };
}

/** Of any model's weights those of the image tower without its projection; a head and a text tower are left out. */
export function backboneWeights(vision: VisionConfig, weights: Weights): Weights {
  const names = backboneSpecs(vision).map(({ name }) => name);
  return new Map(names.flatMap((name) => (weights.has(name) ? [[name, weights.get(name)!] as const] : [])));
}
