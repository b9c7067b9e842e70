import type { VisionConfig } from '../../common/config/vision-config.ts';
import { linearSpecs, normSpecs, type ParameterSpec, runningSpecs } from '../parameter-spec.ts';
import { newBackbone } from './backbone.ts';
import { type MlpShape, mlpBufferSpecs, mlpParameterSpecs } from './mlp-head.ts';

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
  | {
      /** MoCo's: a projector, and on the query's side perhaps a predictor behind it. */
      readonly kind: 'moco';
      readonly projector: HeadShape;
      readonly predictor?: HeadShape;
    }
  | { readonly kind: 'classifier'; readonly classes: number }
  | {
      readonly kind: 'pair-classifier';
      readonly classes: number;
      /** How the features of a pair become one: side by side, or the second less the first. */
      readonly combine: 'concat' | 'subtract';
      readonly hidden: number;
    };

export type ProjectionHead = Extract<HeadConfig, { kind: 'projection' }>;
export type MocoHead = Extract<HeadConfig, { kind: 'moco' }>;
type HeadShape = Omit<MlpShape, 'inputs'>;

/**
 * Backbone and head. The head's numbers are those of PyTorch's `Sequential(Linear, BatchNorm1d, ReLU, Linear)`; a layer that a
 * normalisation follows has no bias of its own.
 */
export function viewParameterSpecs(vision: VisionConfig, head: HeadConfig, key = 'head'): ParameterSpec[] {
  const backbone = newBackbone(vision);
  const specs = backbone.parameterSpecs();
  const { featureWidth } = backbone;
  if (head.kind === 'classifier') return [...specs, ...linearSpecs(key, featureWidth, head.classes)];
  if (head.kind === 'moco') {
    const parts = mocoParts(featureWidth, head);
    return [...specs, ...parts.flatMap(([prefix, shape]) => mlpParameterSpecs(prefix, shape))];
  }
  if (head.kind === 'pair-classifier') {
    const inputs = head.combine === 'concat' ? 2 * featureWidth : featureWidth;
    return [
      ...specs,
      ...linearSpecs(`${key}.0`, inputs, head.hidden),
      ...linearSpecs(`${key}.2`, head.hidden, head.classes),
    ];
  }
  return [
    ...specs,
    ...linearSpecs(`${key}.0`, featureWidth, head.hidden, !head.batchNorm),
    ...(head.batchNorm ? normSpecs(`${key}.1`, head.hidden) : []),
    ...linearSpecs(`${key}.3`, head.hidden, head.width),
  ];
}

/** Running statistics of the backbone and of the head, the backbone's fixed positions. */
export function viewBufferSpecs(vision: VisionConfig, head: HeadConfig, key = 'head'): ParameterSpec[] {
  const backbone = newBackbone(vision);
  const specs = backbone.bufferSpecs();
  if (head.kind === 'moco') {
    const parts = mocoParts(backbone.featureWidth, head);
    return [...specs, ...parts.flatMap(([prefix, shape]) => mlpBufferSpecs(prefix, shape))];
  }
  return [...specs, ...(head.kind === 'projection' && head.batchNorm ? runningSpecs(`${key}.1`, head.hidden) : [])];
}

/** The perceptrons of a MoCo head with the names of their keys, in the order they are run. */
export function mocoParts(
  featureWidth: number,
  { projector, predictor }: MocoHead,
): (readonly [prefix: string, shape: MlpShape])[] {
  const head = ['head', { ...projector, inputs: featureWidth }] as const;
  return predictor ? [head, ['predictor', { ...predictor, inputs: projector.outputs }]] : [head];
}

/** Width of z, or the number of classes. */
export function headWidth(head: HeadConfig): number {
  if (head.kind === 'moco') return head.projector.outputs;
  return head.kind === 'projection' ? head.width : head.classes;
}
