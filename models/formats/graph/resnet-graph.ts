import type { ResnetVisionConfig } from '../../../common/config/vision-config.ts';
import { type BlockShape, hasDownsample, resNetBlocks } from '../../vision/resnet-shapes.ts';
import { type FoldedLayer, foldedLayers } from './folded-convolution.ts';
import type { ConvolutionOptions, GraphWriter, TensorLookup } from './graph-writer.ts';

/** The ResNet of models/vision/resnet-forward.ts, written down. @returns [B, featureWidth] */
export function writeResnet<V>(graph: GraphWriter<V>, tensor: TensorLookup, vision: ResnetVisionConfig): V {
  const { imageSize, depth, width, stem = 'imagenet' } = vision;
  const layer = foldedLayers(graph, tensor);
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

function writeBlock<V>(graph: GraphWriter<V>, x: V, block: BlockShape, layer: FoldedLayer<V>): V {
  const { name, stride, kind } = block;
  const shortcut = hasDownsample(block)
    ? layer(x, `${name}.downsample.0`, `${name}.downsample.1`, { stride, padding: 0 })
    : x;
  const numbered = (input: V, number: number, options?: ConvolutionOptions) =>
    layer(input, `${name}.conv${number}`, `${name}.bn${number}`, options);
  if (kind === 'basic') {
    const hidden = graph.relu(numbered(x, 1, { stride, padding: 1 }));
    return graph.relu(graph.add(numbered(hidden, 2, { stride: 1, padding: 1 }), shortcut));
  }
  const narrow = graph.relu(numbered(x, 1));
  const hidden = graph.relu(numbered(narrow, 2, { stride, padding: 1 }));
  return graph.relu(graph.add(numbered(hidden, 3), shortcut));
}
