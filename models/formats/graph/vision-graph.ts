import type { VisionConfig } from '../../../common/config/vision-config.ts';
import { patchCount, tokenCount, type VitLayout, vitLayout } from '../../vision/vit-layout.ts';
import { transposed } from '../weights.ts';
import { writeAttentionPool } from './attention-pool-graph.ts';
import type { GraphWriter, TensorLookup } from './graph-writer.ts';
import { writeModifiedResnet } from './modified-resnet-graph.ts';
import { writeResnet } from './resnet-graph.ts';
import { writeBlocks, writeLayerNorm, writeLinear } from './transformer-graph.ts';

/** An image tower up to its feature, written down. @returns [B,F] */
export function writeImageFeatures<V>(
  graph: GraphWriter<V>,
  tensor: TensorLookup,
  vision: VisionConfig,
  quickGelu: boolean,
): V {
  switch (vision.kind) {
    case 'resnet':
      return writeResnet(graph, tensor, vision);
    case 'modified-resnet':
      return writeModifiedResnet(graph, tensor, vision);
    default:
      return writeVit(graph, tensor, vitLayout(vision), quickGelu);
  }
}

/** The ViT of models/vision/vit.ts. */
function writeVit<V>(graph: GraphWriter<V>, tensor: TensorLookup, layout: VitLayout, quickGelu: boolean): V {
  const { width, layers, headWidth, layerNormEps: eps, pooling, normBeforePool } = layout;
  const embedded = writeEmbedding(graph, tensor, layout);
  const first = layout.lnPre ? writeLayerNorm(graph, embedded, 'visual.ln_pre', tensor, eps) : embedded;
  const tokens = writeBlocks(graph, first, tensor, {
    prefix: 'visual.transformer.resblocks',
    layers,
    heads: width / headWidth,
    width,
    quickGelu,
    tokens: tokenCount(layout),
    mask: null,
    eps,
  });
  const finalNorm = (x: V) => writeLayerNorm(graph, x, 'visual.ln_post', tensor, eps);
  if (pooling === 'tok') return finalNorm(graph.firstToken(tokens));
  if (pooling === 'map') {
    const shape = { tokens: tokenCount(layout), heads: width / headWidth, width };
    return writeAttentionPool(graph, finalNorm(tokens), tensor, { prefix: 'visual.attn_pool', eps, ...shape });
  }
  const pool = (x: V) => graph.meanToken(x, layout.classToken ? 1 : 0);
  return normBeforePool ? pool(finalNorm(tokens)) : finalNorm(pool(tokens));
}

function writeEmbedding<V>(graph: GraphWriter<V>, tensor: TensorLookup, layout: VitLayout): V {
  const { imageSize, width, patchBias, classToken } = layout;
  const conv = 'visual.conv1.weight';
  const patches = graph.patches(graph.pixels(imageSize), conv, tensor(conv), patchCount(layout));
  const biased = patchBias
    ? graph.add(patches, graph.constant('visual.conv1.bias', tensor('visual.conv1.bias')))
    : patches;
  const positions = Float32Array.from(tensor('visual.positional_embedding').values);
  const table = () =>
    graph.constant('visual.positions', { shape: [positions.length / width, width], values: positions });
  if (!classToken) return graph.add(biased, table());
  // The class token is the row before the patches; adding it together with its position spares the graph the size of the batch.
  const token = tensor('visual.class_embedding').values;
  for (let d = 0; d < width; d++) positions[d] = Math.fround(positions[d]! + token[d]!);
  return graph.add(graph.zeroTokenFirst(biased), table());
}

/** h projected to the shared space, [B,E], not normalised: in CLIP's ResNet by the last layer of its attention pool. */
export function writeImageEmbedding<V>(
  graph: GraphWriter<V>,
  tensor: TensorLookup,
  vision: VisionConfig,
  features: V,
): V {
  if (vision.kind === 'modified-resnet') return writeLinear(graph, features, 'visual.attnpool.c_proj', tensor);
  return graph.linear(features, 'visual.proj', transposed(tensor('visual.proj')), null);
}
