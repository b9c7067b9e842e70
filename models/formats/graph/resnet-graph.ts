import type { ResnetVisionConfig } from '../../../common/config/vision-config.ts';
import { type BlockShape, hasDownsample, resNetBlocks } from '../../vision/resnet-shapes.ts';
import type { HostTensor } from '../safetensors.ts';
import type { ConvolutionOptions, GraphWriter, TensorLookup } from './graph-writer.ts';

/** Of every batch norm (torchvision). */
const BATCH_NORM_EPS = 1e-5;

/**
 * The ResNet of models/vision/resnet-forward.ts, written down. Batch norms with their running statistics are part of the convolution before
 * them: w·γ/√(σ² + ε) and β − μ·γ/√(σ² + ε). @returns [B, featureWidth]
 */
export function writeResnet<V>(graph: GraphWriter<V>, tensor: TensorLookup, vision: ResnetVisionConfig): V {
  const { imageSize, depth, width, stem = 'imagenet' } = vision;
  const layer = (x: V, conv: string, norm: string, options: ConvolutionOptions) => {
    const { weight, bias } = folded(tensor, `visual.${conv}.weight`, `visual.${norm}`);
    return graph.convolution(x, `visual.${conv}`, weight, bias, options);
  };
  const pixels = graph.pixels(imageSize);
  const first =
    stem === 'cifar'
      ? graph.relu(layer(pixels, 'conv1', 'bn1', { stride: 1, padding: 1 }))
      : graph.maxPool(graph.relu(layer(pixels, 'conv1', 'bn1', { stride: 2, padding: 3 })), {
          size: 3,
          stride: 2,
          padding: 1,
        });
  const last = resNetBlocks(depth, width).reduce((x, block) => writeBlock(graph, x, block, layer), first);
  return graph.meanPlace(last);
}

type Layer<V> = (x: V, conv: string, norm: string, options: ConvolutionOptions) => V;

function writeBlock<V>(graph: GraphWriter<V>, x: V, block: BlockShape, layer: Layer<V>): V {
  const { name, stride, kind } = block;
  const plain = { stride: 1, padding: 0 };
  const shortcut = hasDownsample(block)
    ? layer(x, `${name}.downsample.0`, `${name}.downsample.1`, { stride, padding: 0 })
    : x;
  const numbered = (input: V, number: number, options: ConvolutionOptions) =>
    layer(input, `${name}.conv${number}`, `${name}.bn${number}`, options);
  if (kind === 'basic') {
    const hidden = graph.relu(numbered(x, 1, { stride, padding: 1 }));
    return graph.relu(graph.add(numbered(hidden, 2, { stride: 1, padding: 1 }), shortcut));
  }
  const narrow = graph.relu(numbered(x, 1, plain));
  const hidden = graph.relu(numbered(narrow, 2, { stride, padding: 1 }));
  return graph.relu(graph.add(numbered(hidden, 3, plain), shortcut));
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
