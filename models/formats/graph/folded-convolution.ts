import type { HostTensor } from '../safetensors.ts';
import type { ConvolutionOptions, GraphWriter, TensorLookup } from './graph-writer.ts';

/** Of every batch norm (torchvision, open_clip). */
const BATCH_NORM_EPS = 1e-5;

/** A convolution of an image tower with the batch norm that follows it, by their keys without `visual.`. */
export type FoldedLayer<V> = (x: V, conv: string, norm: string, options?: ConvolutionOptions) => V;

/** Stride 1, no padding. */
const PLAIN: ConvolutionOptions = { stride: 1, padding: 0 };

/** Writes batch norms with their running statistics as part of the convolution before them: w·γ/√(σ² + ε) and β − μ·γ/√(σ² + ε). */
export function foldedLayers<V>(graph: GraphWriter<V>, tensor: TensorLookup): FoldedLayer<V> {
  return (x, conv, norm, options = PLAIN) => {
    const { weight, bias } = folded(tensor, `visual.${conv}.weight`, `visual.${norm}`);
    return graph.convolution(x, `visual.${conv}`, weight, bias, options);
  };
}

/** In double precision, rounded once. */
function folded(tensor: TensorLookup, conv: string, norm: string): { weight: HostTensor; bias: HostTensor } {
  const { shape, values } = tensor(conv);
  const outputs = shape[0] ?? 0;
  const size = values.length / outputs;
  const [gain, shift, mean, variance] = ['weight', 'bias', 'running_mean', 'running_var'].map(
    (part) => tensor(`${norm}.${part}`).values,
  ) as [Float32Array, Float32Array, Float32Array, Float32Array];
  const scale = Float64Array.from(gain, (value, o) => value / Math.sqrt(variance[o]! + BATCH_NORM_EPS));
  return {
    weight: { shape, values: values.map((value, i) => value * scale[Math.floor(i / size)]!) },
    bias: { shape: [outputs], values: shift.map((value, o) => value - mean[o]! * scale[o]!) },
  };
}
