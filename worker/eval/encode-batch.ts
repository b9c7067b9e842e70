import { type Engine, pixelsToTensor, tf } from '../../engine/index.ts';
import type { ClipModel } from '../../models/clip/clip-model.ts';
import type { Tokenizer } from '../../models/tokenizer/tokenizer.ts';

/** Pictures and captions encoded at once where nothing else is said. */
export const ENCODE_BATCH = 128;

export interface PictureModules {
  readonly engine: Engine;
  readonly model: ClipModel;
}

export interface TextModules extends PictureModules {
  readonly tokenizer: Tokenizer;
}

export interface Normalisation {
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
}

/** Unit-length embeddings, [n, embedDim], of pictures: uint8 RGB [n, side, side, 3], all of them in one forward. */
export function encodePictures(
  pixels: Uint8Array,
  { mean, std }: Normalisation,
  { engine, model }: PictureModules,
): Float32Array {
  const side = model.config.vision.imageSize;
  const count = pixels.length / (side ** 2 * 3);
  return tf.tidy(() => {
    const x_BHWC = pixelsToTensor(pixels, [count, side, side, 3], { mean, std, precision: 'fp32' });
    return readAll(engine, model.encodeImage(x_BHWC)) as never;
  });
}

/** Unit-length embeddings, [n, embedDim], of texts. A text that is longer than the model's context is cut. */
export function encodeTexts(
  texts: readonly string[],
  { engine, model, tokenizer }: TextModules,
  batch = ENCODE_BATCH,
): Float32Array {
  const { embedDim } = model.config;
  const embeddings = new Float32Array(texts.length * embedDim);
  for (let begin = 0; begin < texts.length; begin += batch) {
    const some = texts.slice(begin, begin + batch);
    const ids = new Int32Array(some.length * tokenizer.contextLength);
    some.forEach((text, row) => {
      ids.set(tokenizer.encode(text), row * tokenizer.contextLength);
    });
    const values = tf.tidy(() => readAll(engine, model.encodeText(ids, some.length)) as never) as Float32Array;
    embeddings.set(values, begin * embedDim);
  }
  return embeddings;
}

function readAll(engine: Engine, embeddings_BE: tf.Tensor): Float32Array {
  const values = new Float32Array(embeddings_BE.size);
  engine.readInto(embeddings_BE, values);
  return values;
}
