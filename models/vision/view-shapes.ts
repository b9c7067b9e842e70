import type { VisionConfig } from '../../common/config/run-config.ts';
import { backboneSpecs, type Initial, type ParameterSpec } from '../clip/parameter-shapes.ts';

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

/** PyTorch's Linear, weight and bias alike: U(±1/√inputs). */
function linearSpecs(name: string, inputs: number, outputs: number, bias = true): ParameterSpec[] {
  const initial: Initial = { kind: 'uniform', bound: 1 / Math.sqrt(inputs) };
  const weight = { name: `${name}.weight`, shape: [outputs, inputs], initial };
  return bias ? [weight, { name: `${name}.bias`, shape: [outputs], initial }] : [weight];
}

const filled = (name: string, width: number, value: number): ParameterSpec => ({
  name,
  shape: [width],
  initial: { kind: 'constant', value },
});

/**
 * Backbone and head. The head's numbers are those of PyTorch's `Sequential(Linear, BatchNorm1d, ReLU, Linear)`; a layer that a
 * normalisation follows has no bias of its own.
 */
export function viewParameterSpecs(vision: VisionConfig, head: HeadConfig): ParameterSpec[] {
  const backbone = backboneSpecs(vision);
  if (head.kind === 'classifier') return [...backbone, ...linearSpecs('head', vision.width, head.classes)];
  return [
    ...backbone,
    ...linearSpecs('head.0', vision.width, head.hidden, !head.batchNorm),
    ...(head.batchNorm ? [filled('head.1.weight', head.hidden, 1), filled('head.1.bias', head.hidden, 0)] : []),
    ...linearSpecs('head.3', head.hidden, head.width),
  ];
}

export function viewBufferSpecs(head: HeadConfig): ParameterSpec[] {
  if (head.kind !== 'projection' || !head.batchNorm) return [];
  return [filled('head.1.running_mean', head.hidden, 0), filled('head.1.running_var', head.hidden, 1)];
}
