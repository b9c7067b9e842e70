import type { TensorLookup } from '../graph/graph-writer.ts';
import { writeTextEmbedding } from '../graph/text-graph.ts';
import { writeImageEmbedding, writeImageFeatures } from '../graph/vision-graph.ts';
import { graphSettings } from '../hugging-face.ts';
import { prettyJson, writeFiles } from '../model-files.ts';
import { type Pretrained, shapesOf, usesQuickGelu, visionOf } from '../pretrained.ts';
import { shapedWeights } from '../weights.ts';
import { type TfjsEnd, TfjsWriter } from './tfjs-writer.ts';

export const TFJS_FILES = { vision: 'vision/model.json', text: 'text/model.json' } as const;

/** tfjs's own tools cut weights to files of this size, which browsers keep in their cache. */
const SHARD_BYTES = 4 * 2 ** 20;

/**
 * Writes graph models that `tf.loadGraphModel` loads in a browser and in Node: `vision/` pixel_values [B,H,W,3] → image_embeds, `text/`
 * input_ids [B,contextLength] → text_embeds, both of unit length; of a backbone `vision/` alone → features. Beside them the tokenizer
 * and the preprocessing in transformers' form.
 * @returns the paths written
 */
export async function exportTfjs(dir: string, model: Pretrained, producerVersion: string): Promise<string[]> {
  const tensors = shapedWeights(shapesOf(model), model.weights);
  const tensor: TensorLookup = (name) => tensors.get(name)!;
  const vision = new TfjsWriter();
  const features = writeImageFeatures(vision, tensor, visionOf(model), usesQuickGelu(model));
  if (model.kind === 'backbone') vision.output('features', features);
  else
    vision.output(
      'image_embeds',
      vision.l2Normalize(writeImageEmbedding(vision, tensor, model.config.vision, features)),
    );
  const files = modelFiles('vision', vision, producerVersion);
  if (model.kind === 'clip') {
    const { text, quickGelu } = model.config;
    const writer = new TfjsWriter();
    writer.output('text_embeds', writer.l2Normalize(writeTextEmbedding(writer, tensor, text, quickGelu)));
    Object.assign(files, modelFiles('text', writer, producerVersion));
  }
  return writeFiles(dir, { ...files, ...graphSettings(model) });
}

function modelFiles(folder: string, graph: TfjsWriter, producerVersion: string): Record<string, string | Uint8Array> {
  const all = new Uint8Array(graph.weights.reduce((sum, { bytes }) => sum + bytes.length, 0));
  let at = 0;
  for (const { bytes } of graph.weights) {
    all.set(bytes, at);
    at += bytes.length;
  }
  const count = Math.ceil(all.length / SHARD_BYTES);
  const paths = Array.from({ length: count }, (_, i) => `group1-shard${i + 1}of${count}.bin`);
  const weights = graph.weights.map(({ name, shape, dtype }) => ({ name, shape, dtype }));
  const topology = {
    format: 'graph-model',
    generatedBy: `covey ${producerVersion}`,
    convertedBy: null,
    signature: { inputs: signatureOf(graph.inputs), outputs: signatureOf(graph.outputs) },
    modelTopology: { node: graph.nodes, library: {}, versions: { producer: 440 } },
    weightsManifest: [{ paths, weights }],
  };
  return {
    [`${folder}/model.json`]: prettyJson(topology),
    ...Object.fromEntries(
      paths.map((path, i) => [`${folder}/${path}`, all.subarray(i * SHARD_BYTES, (i + 1) * SHARD_BYTES)]),
    ),
  };
}

function signatureOf(ends: readonly TfjsEnd[]) {
  return Object.fromEntries(
    ends.map(({ name, dtype, shape }) => [
      name,
      { name: `${name}:0`, dtype, tensorShape: { dim: shape.map((size) => ({ size: String(size) })) } },
    ]),
  );
}
