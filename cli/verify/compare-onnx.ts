import path from 'node:path';
import { ONNX_FILES } from '../../models/formats/onnx/export-onnx.ts';
import { type IntegerTensor, openOnnx } from '../../models/formats/onnx/onnx-session.ts';
import { type Pretrained, type PretrainedClip, visionOf } from '../../models/formats/pretrained.ts';
import type { HostTensor } from '../../models/formats/safetensors.ts';
import { unitRows } from '../../models/linear/unit-rows.ts';
import { type Comparison, maxAbsDifference } from './comparison.ts';
import type { ReferenceEmbeddings } from './reference-embeddings.ts';

/** Pictures and captions at once, as much as a small machine holds. */
const BATCH = 16;

/**
 * Runs an ONNX export in onnxruntime-node and compares every output. Embeddings are compared at unit length, logits divided by their
 * scale: cosines in both cases, so that one tolerance serves all. The captions go in cut to the longest of their batch and padded with
 * the end token, as transformers' tokenizers hand them over, while covey was given full length and zeros.
 */
export async function compareOnnx(
  folder: string,
  model: Pretrained,
  reference: ReferenceEmbeddings,
  tolerance: number,
): Promise<Comparison[]> {
  const results = new Map<string, Comparison>();
  const note = (file: string, output: string, difference: number) => {
    const key = `${file} ${output}`;
    const before = results.get(key)?.maxAbsDifference ?? 0;
    results.set(key, { format: 'onnx', file, output, maxAbsDifference: Math.max(before, difference), tolerance });
  };
  const files = model.kind === 'clip' ? Object.values(ONNX_FILES) : [ONNX_FILES.vision];
  for (const file of files) {
    const session = await openOnnx(path.join(folder, file));
    try {
      for (const batch of batchesOf(model, reference)) {
        const inputs = Object.fromEntries(session.inputNames.map((name) => [name, batch.inputs[name]!]));
        const outputs = await session.run(inputs);
        for (const [name, { values }] of Object.entries(outputs)) {
          const expected = batch.expected[name];
          const found = name.endsWith('_embeds') ? unitRows(values, reference.width) : values;
          note(
            file,
            name,
            expected ? maxAbsDifference(scaled(found, name, model), expected) : Number.POSITIVE_INFINITY,
          );
        }
      }
    } finally {
      await session.close();
    }
  }
  return [...results.values()];
}

/** Logits back to cosines. */
function scaled(values: Float32Array, name: string, model: Pretrained): Float32Array {
  if (!name.startsWith('logits_') || model.kind !== 'clip') return values;
  const scale = Math.exp(model.weights.get('logit_scale')![0]!);
  const bias = model.weights.get('logit_bias')?.[0] ?? 0;
  return values.map((value) => (value - bias) / scale);
}

interface Batch {
  readonly inputs: Readonly<Record<string, HostTensor | IntegerTensor>>;
  readonly expected: Readonly<Record<string, Float32Array>>;
}

function* batchesOf(model: Pretrained, reference: ReferenceEmbeddings): Generator<Batch> {
  const { imageSize } = visionOf(model);
  const { width, ids, texts } = reference;
  const count = reference.images.length / width;
  for (let begin = 0; begin < count; begin += BATCH) {
    const end = Math.min(begin + BATCH, count);
    const rows = (values: Float32Array) => values.subarray(begin * width, end * width);
    const pixels = channelsFirst(reference.pixels_BHWC, imageSize, begin, end);
    const images = rows(reference.images);
    if (model.kind === 'backbone') {
      yield { inputs: { pixel_values: pixels }, expected: { pooler_output: images } };
      continue;
    }
    const perImage = products(images, rows(texts!), width);
    const expected = {
      image_embeds: images,
      text_embeds: rows(texts!),
      logits_per_image: perImage,
      logits_per_text: turned(perImage, end - begin),
    };
    yield { inputs: { pixel_values: pixels, input_ids: cutCaptions(model, ids!, begin, end) }, expected };
  }
}

function channelsFirst(pixels: Float32Array, side: number, begin: number, end: number) {
  const plane = side * side;
  const values = new Float32Array((end - begin) * 3 * plane);
  for (let image = begin; image < end; image++) {
    for (let place = 0; place < plane; place++) {
      for (let c = 0; c < 3; c++) {
        values[((image - begin) * 3 + c) * plane + place] = pixels[(image * plane + place) * 3 + c]!;
      }
    }
  }
  return { shape: [end - begin, 3, side, side], values };
}

function cutCaptions({ config, tokenizer }: PretrainedClip, ids: Int32Array, begin: number, end: number) {
  const { contextLength } = config.text;
  const { eosId } = tokenizer;
  const lengths = Array.from({ length: end - begin }, (_, i) => {
    const row = ids.subarray((begin + i) * contextLength, (begin + i + 1) * contextLength);
    return row.indexOf(eosId) + 1;
  });
  const longest = Math.max(...lengths);
  const values = new Int32Array(lengths.length * longest).fill(eosId);
  for (const [i, length] of lengths.entries()) {
    const from = (begin + i) * contextLength;
    values.set(ids.subarray(from, from + length), i * longest);
  }
  return { shape: [lengths.length, longest], values };
}

function products(a: Float32Array, b: Float32Array, width: number): Float32Array {
  const rows = a.length / width;
  const columns = b.length / width;
  const out = new Float32Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0; j < columns; j++) {
      let sum = 0;
      for (let k = 0; k < width; k++) sum += a[i * width + k]! * b[j * width + k]!;
      out[i * columns + j] = sum;
    }
  }
  return out;
}

function turned(square: Float32Array, side: number): Float32Array {
  return square.map((_, i) => square[(i % side) * side + Math.floor(i / side)]!);
}
