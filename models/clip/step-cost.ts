import type { ModelConfig } from '../../common/config/run-config.ts';
import { elementCount, type ParameterSpec } from '../parameter-spec.ts';
import { newBackbone } from '../vision/backbone.ts';
import { blockActivationFloats, blocksFlops } from './block-cost.ts';

/** What training a model costs, to within a factor of two. */
export interface StepCost {
  readonly parameters: number;
  /** Forward and backward of one sample: three times the forward's products. */
  readonly multiplyAddsPerSample: number;
  /** fp32 activations of one sample that wait for the backward, in plain (unfused) ops. */
  readonly activationBytesPerSample: number;
}

/** Which towers a sample goes through. */
export interface SampleInputs {
  /** Augmented pictures. */
  readonly views: number;
  readonly captions: boolean;
}

/** @param parameters those that are trained; heads are little beside the towers and count as parameters only */
export function stepCost(
  { vision, text }: ModelConfig,
  parameters: readonly ParameterSpec[],
  { views, captions }: SampleInputs,
): StepCost {
  const picture = newBackbone(vision).cost();
  const caption = captions
    ? { ...text, tokens: text.contextLength, causal: false, pooledRows: text.contextLength }
    : undefined;
  const forwardFlops = views * picture.forwardFlops + (caption ? blocksFlops(caption) : 0);
  const floats = views * picture.activationFloats + (caption ? caption.layers * blockActivationFloats(caption) : 0);
  return {
    parameters: parameters.reduce((total, { shape }) => total + elementCount(shape), 0),
    multiplyAddsPerSample: (3 * forwardFlops) / 2,
    activationBytesPerSample: 4 * floats,
  };
}
