import type { VisionConfig } from '../../common/config/vision-config.ts';
import { linearSpecs, normSpecs, type ParameterSpec, runningSpecs } from '../parameter-spec.ts';
import { newBackbone } from './backbone.ts';

export type HeadConfig =
  | {
      readonly kind: 'projection';
      /** Of the hidden layer; SimCLR's is the width of h. */
      readonly hidden: number;
      /** Of z. */
      readonly width: number;
      /** Between the first layer and its ReLU, as in SimCLR's code; its paper has none. */
      readonly batchNorm: boolean;
    }
  | { readonly kind: 'classifier'; readonly classes: number };

/**
 * Backbone and head. The head's numbers are those of PyTorch's `Sequential(Linear, BatchNorm1d, ReLU, Linear)`; a layer that a
 * normalisation follows has no bias of its own.
 */
export function viewParameterSpecs(vision: VisionConfig, head: HeadConfig): ParameterSpec[] {
  const backbone = newBackbone(vision);
  const specs = backbone.parameterSpecs();
  if (head.kind === 'classifier') return [...specs, ...linearSpecs('head', backbone.featureWidth, head.classes)];
  return [
    ...specs,
    ...linearSpecs('head.0', backbone.featureWidth, head.hidden, !head.batchNorm),
    ...(head.batchNorm ? normSpecs('head.1', head.hidden) : []),
    ...linearSpecs('head.3', head.hidden, head.width),
  ];
}

/** Running statistics of the backbone and of the head, the backbone's fixed positions. */
export function viewBufferSpecs(vision: VisionConfig, head: HeadConfig): ParameterSpec[] {
  const own = head.kind === 'projection' && head.batchNorm ? runningSpecs('head.1', head.hidden) : [];
  return [...newBackbone(vision).bufferSpecs(), ...own];
}
