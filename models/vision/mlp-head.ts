import { linear, relu, type Tensor, type Tensor1D, type Tensor2D } from '../../engine/index.ts';
import type { ParameterLookup } from '../clip/transformer.ts';
import { constant, linearSpecs, normSpecs, type ParameterSpec, runningSpecs } from '../parameter-spec.ts';
import type { BatchNormLayer } from './batch-norm-layer.ts';

/**
 * MoCo's heads (`moco/builder.py:_build_mlp` of facebookresearch/moco-v3): linear layers with ReLU between them, optionally with batch norm
 * after each; then no layer has a bias of its own, and the last norm has neither gain nor shift.
 */
export interface MlpShape {
  readonly layers: number;
  readonly inputs: number;
  readonly hidden: number;
  readonly outputs: number;
  /** After every layer but the last. */
  readonly batchNorm: boolean;
  /** After the last. */
  readonly lastNorm: boolean;
  /** The last layer has a bias although the others, which a norm follows, have none. Default false. */
  readonly lastBias?: boolean;
}

/** One linear layer and what follows it. `at` is its place in PyTorch's `Sequential` of linear, norm and ReLU. */
interface Layer {
  readonly at: number;
  readonly inputs: number;
  readonly outputs: number;
  readonly isLast: boolean;
}

function layersOf({ layers, inputs, hidden, outputs }: MlpShape): Layer[] {
  return Array.from({ length: layers }, (_, i) => ({
    at: 3 * i,
    inputs: i === 0 ? inputs : hidden,
    outputs: i === layers - 1 ? outputs : hidden,
    isLast: i === layers - 1,
  }));
}

const hasBias = ({ batchNorm, lastNorm, lastBias = false }: MlpShape, { isLast }: Layer) =>
  (!batchNorm && !lastNorm) || (isLast && lastBias);
const isNormed = ({ batchNorm, lastNorm }: MlpShape, { isLast }: Layer) => (isLast ? lastNorm : batchNorm);

export function mlpParameterSpecs(prefix: string, shape: MlpShape): ParameterSpec[] {
  return layersOf(shape).flatMap((layer) => [
    ...linearSpecs(`${prefix}.${layer.at}`, layer.inputs, layer.outputs, hasBias(shape, layer)),
    ...(isNormed(shape, layer) && !layer.isLast ? normSpecs(`${prefix}.${layer.at + 1}`, layer.outputs) : []),
  ]);
}

/** Running statistics; and the last norm's gain and shift, which are 1 and 0 and stay so. */
export function mlpBufferSpecs(prefix: string, shape: MlpShape): ParameterSpec[] {
  return layersOf(shape).flatMap((layer) => {
    if (!isNormed(shape, layer)) return [];
    const name = `${prefix}.${layer.at + 1}`;
    const fixed = [
      { name: `${name}.weight`, shape: [layer.outputs], initial: constant(1) },
      { name: `${name}.bias`, shape: [layer.outputs], initial: constant(0) },
    ];
    return [...(layer.isLast ? fixed : []), ...runningSpecs(name, layer.outputs)];
  });
}

/** [B, inputs] → [B, outputs], float32. */
export function mlp(
  x_BD: Tensor2D,
  prefix: string,
  shape: MlpShape,
  tower: { readonly parameter: ParameterLookup; readonly normalise: BatchNormLayer },
): Tensor2D {
  const { parameter, normalise } = tower;
  return layersOf(shape).reduce((x: Tensor, layer) => {
    const name = `${prefix}.${layer.at}`;
    const bias = hasBias(shape, layer) ? parameter<Tensor1D>(`${name}.bias`) : null;
    const y = linear(x, parameter<Tensor2D>(`${name}.weight`), bias);
    if (!isNormed(shape, layer)) return layer.isLast ? y : relu(y);
    return normalise([y], `${prefix}.${layer.at + 1}`, layer.isLast ? {} : { activation: 'relu' })[0]!;
  }, x_BD) as Tensor2D;
}
