import type { ModifiedResnetConfig } from '../../../common/config/vision-config.ts';
import { lastSide, lastWidth, modifiedResnetBlocks } from '../../vision/modified-resnet-shapes.ts';
import { type BlockShape, hasDownsample } from '../../vision/resnet-shapes.ts';
import { writeAttendOnce } from './attention-pool-graph.ts';
import { type FoldedLayer, foldedLayers } from './folded-convolution.ts';
import type { GraphWriter, TensorLookup } from './graph-writer.ts';
import { writeLinear } from './transformer-graph.ts';

const POOL = 'visual.attnpool';

/** CLIP's ResNet of models/vision/modified-resnet.ts, written down. @returns [B, lastWidth], before the pool's output projection */
export function writeModifiedResnet<V>(graph: GraphWriter<V>, tensor: TensorLookup, vision: ModifiedResnetConfig): V {
  const layer = foldedLayers(graph, tensor);
  let x = graph.pixels(vision.imageSize);
  for (const i of [1, 2, 3]) {
    x = graph.relu(layer(x, `conv${i}`, `bn${i}`, { stride: i === 1 ? 2 : 1, padding: 1 }));
  }
  const stem = graph.meanPool(x, 2);
  const last = modifiedResnetBlocks(vision).reduce((y, block) => writeBottleneck(graph, y, block, layer), stem);
  return writePool(graph, last, tensor, vision);
}

/** Strides are mean pools before convolutions of stride 1. */
function writeBottleneck<V>(graph: GraphWriter<V>, x: V, block: BlockShape, layer: FoldedLayer<V>): V {
  const { name, stride } = block;
  const pooled = (y: V) => (stride === 1 ? y : graph.meanPool(y, stride));
  const shortcut = hasDownsample(block) ? layer(pooled(x), `${name}.downsample.0`, `${name}.downsample.1`) : x;
  const narrow = graph.relu(layer(x, `${name}.conv1`, `${name}.bn1`));
  const hidden = graph.relu(layer(narrow, `${name}.conv2`, `${name}.bn2`, { stride: 1, padding: 1 }));
  return graph.relu(graph.add(layer(pooled(hidden), `${name}.conv3`, `${name}.bn3`), shortcut));
}

/** The mean of all places asks, the mean and all places answer. */
function writePool<V>(graph: GraphWriter<V>, x: V, tensor: TensorLookup, vision: ModifiedResnetConfig): V {
  const width = lastWidth(vision);
  const places = lastSide(vision) ** 2;
  const mean = graph.reshape(graph.meanPlace(x), ['batch', 1, width]);
  const all = graph.joinTokens(mean, graph.placeTokens(x, places, width));
  const positions = graph.constant(`${POOL}.positional_embedding`, tensor(`${POOL}.positional_embedding`));
  const tokens = graph.add(all, positions);
  const heads = width / vision.headWidth;
  const query = writeLinear(graph, graph.firstToken(tokens), `${POOL}.q_proj`, tensor);
  const scale = graph.constant(`${POOL}.scale`, { shape: [], values: Float32Array.of(vision.headWidth ** -0.5) });
  const q = graph.reshape(graph.multiply(query, scale), ['batch', heads, 1, vision.headWidth]);
  const keys = writeLinear(graph, tokens, `${POOL}.k_proj`, tensor);
  const k = graph.transpose(graph.reshape(keys, ['batch', places + 1, heads, vision.headWidth]), [0, 2, 3, 1]);
  const values = writeLinear(graph, tokens, `${POOL}.v_proj`, tensor);
  return writeAttendOnce(graph, graph.matMul(q, k), values, { tokens: places + 1, heads, width });
}
