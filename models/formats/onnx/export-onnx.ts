import { newBackbone } from '../../vision/backbone.ts';
import type { TensorLookup } from '../graph/graph-writer.ts';
import { writeTextEmbedding } from '../graph/text-graph.ts';
import { writeImageEmbedding, writeImageFeatures } from '../graph/vision-graph.ts';
import { graphSettings } from '../hugging-face.ts';
import { writeFiles } from '../model-files.ts';
import { type Pretrained, type PretrainedClip, shapesOf, usesQuickGelu, visionOf } from '../pretrained.ts';
import { shapedWeights } from '../weights.ts';
import { OnnxWriter } from './onnx-writer.ts';

export const ONNX_FILES = {
  vision: 'onnx/vision_model.onnx',
  text: 'onnx/text_model.onnx',
  joint: 'onnx/model.onnx',
} as const;

const ONE_BATCH = { images: 'batch_size', texts: 'batch_size' };
const TWO_BATCHES = { images: 'image_batch_size', texts: 'text_batch_size' };

/**
 * Writes a folder that transformers.js loads, with graphs that onnxruntime reads (names of inputs and outputs are those of optimum's
 * exports): `vision_model` pixel_values → image_embeds, `text_model` input_ids → text_embeds, both before normalisation as in
 * transformers; `model` both → logits_per_image, logits_per_text, text_embeds, image_embeds, normalised. Of a backbone `vision_model`
 * alone, pixel_values → pooler_output. `input_ids` may be padded with 0 or with the end token.
 * @returns the paths written
 */
export async function exportOnnx(dir: string, model: Pretrained, producerVersion: string): Promise<string[]> {
  const tensors = shapedWeights(shapesOf(model), model.weights);
  const tensor: TensorLookup = (name) => tensors.get(name)!;
  const encode = (name: string, write: (graph: OnnxWriter) => void, batch = ONE_BATCH) => {
    const graph = new OnnxWriter(batch);
    write(graph);
    return graph.encode(name, {}, producerVersion);
  };
  const settings = graphSettings(model);
  if (model.kind === 'backbone') {
    const vision = encode('vision_model', (graph) => writeBackbone(graph, tensor, model));
    return writeFiles(dir, { [ONNX_FILES.vision]: vision, ...settings });
  }
  const { embedDim } = model.config;
  const image = (graph: OnnxWriter) =>
    graph.output('image_embeds', writeImage(graph, tensor, model), ['batch_size', embedDim]);
  const text = (graph: OnnxWriter) =>
    graph.output('text_embeds', writeText(graph, tensor, model), ['batch_size', embedDim]);
  // One after the other: a large model's graphs need not be in memory together.
  return [
    ...(await writeFiles(dir, { [ONNX_FILES.vision]: encode('vision_model', image) })),
    ...(await writeFiles(dir, { [ONNX_FILES.text]: encode('text_model', text) })),
    ...(await writeFiles(dir, {
      [ONNX_FILES.joint]: encode('model', (graph) => writeJoint(graph, tensor, model), TWO_BATCHES),
      ...settings,
    })),
  ];
}

function writeBackbone(graph: OnnxWriter, tensor: TensorLookup, model: Pretrained): void {
  const vision = visionOf(model);
  const features = writeImageFeatures(graph, tensor, vision, usesQuickGelu(model));
  graph.output('pooler_output', features, ['batch_size', newBackbone(vision).featureWidth]);
}

function writeImage(graph: OnnxWriter, tensor: TensorLookup, { config }: PretrainedClip): string {
  const features = writeImageFeatures(graph, tensor, config.vision, config.quickGelu);
  return writeImageEmbedding(graph, tensor, config.vision, features);
}

function writeText(graph: OnnxWriter, tensor: TensorLookup, { config }: PretrainedClip): string {
  return writeTextEmbedding(graph, tensor, config.text, config.quickGelu);
}

/** logits = exp(logit_scale)·I·Tᵀ (+ bias), one row per picture; and the same turned round. */
function writeJoint(graph: OnnxWriter, tensor: TensorLookup, model: PretrainedClip): void {
  const scalar = (name: string, map: (value: number) => number) =>
    graph.constant(name, { shape: [], values: tensor(name).values.map(map) });
  const texts = graph.l2Normalize(writeText(graph, tensor, model));
  const images = graph.l2Normalize(writeImage(graph, tensor, model));
  const products = graph.matMul(
    graph.multiply(images, scalar('logit_scale', Math.exp)),
    graph.transpose(texts, [1, 0]),
  );
  const logits =
    model.config.initLogitBias === undefined
      ? products
      : graph.add(
          products,
          scalar('logit_bias', (value) => value),
        );
  const { embedDim } = model.config;
  graph.output('logits_per_image', logits, ['image_batch_size', 'text_batch_size']);
  graph.output('logits_per_text', graph.transpose(logits, [1, 0]), ['text_batch_size', 'image_batch_size']);
  graph.output('text_embeds', texts, ['text_batch_size', embedDim]);
  graph.output('image_embeds', images, ['image_batch_size', embedDim]);
}
