import { throwIfAborted } from '../../common/errors.ts';
import { type Engine, pixelsToTensor, tf } from '../../engine/index.ts';
import type { LabelledFeatures } from '../../models/linear/logistic-regression.ts';
import type { LabelledSample } from '../data/labelled-set.ts';
import type { PictureSample, PictureSource } from '../data/picture-source.ts';
import type { TransferNetwork } from '../network.ts';

/** Pictures that go through the network at once. */
const BATCH = 128;

/** What makes an embedding of a picture. */
export interface PictureEncoder {
  /** Where it is from, in words for reports. */
  readonly origin: string;
  /** 16 hex digits: equal ones make equal embeddings. */
  readonly digest: string;
  /** Side of the pictures it takes. */
  readonly imageSide: number;
  /** Numbers of an embedding. */
  readonly columns: number;
  /** @param pixels uint8 RGB [n, side, side, 3] @returns float32 [n, columns] */
  encode(pixels: Uint8Array): Float32Array;
}

/** The network's features as embeddings. */
export function networkEncoder(engine: Engine, network: TransferNetwork): PictureEncoder {
  const { origin, digest } = network.source;
  return {
    origin,
    digest,
    imageSide: network.source.vision.imageSize,
    columns: network.featureWidth,
    encode: (pixels) => encodePixels(engine, network, pixels, 'features'),
  };
}

/** What the network makes of some pictures: its features, or its class scores. Float32 [n, width] on the host. */
export function encodePixels(
  engine: Engine,
  network: TransferNetwork,
  pixels: Uint8Array,
  output: 'features' | 'logits',
): Float32Array {
  const { mean, std, vision } = network.source;
  const side = vision.imageSize;
  const count = pixels.length / (side ** 2 * 3);
  return tf.tidy(() => {
    const x_BHWC = pixelsToTensor(pixels, [count, side, side, 3], { mean, std, precision: network.precision });
    const encoded = network[output](x_BHWC);
    const values = new Float32Array(encoded.size);
    engine.readInto(encoded, values);
    return values as never;
  });
}

/** Features of some pictures, row by row. */
export type FeatureRows = Omit<LabelledFeatures, 'labels_N'>;

export interface ExtractModules {
  readonly engine: Engine;
  readonly network: TransferNetwork;
  readonly pictures: PictureSource;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: ((done: number, total: number) => void) | undefined;
}

/** Features of labelled pictures through the evaluation transform, in order. */
export async function labelledFeatures(
  samples: readonly LabelledSample[],
  modules: ExtractModules,
): Promise<LabelledFeatures> {
  const labels_N = Int32Array.from(samples, ({ label }) => label);
  return { ...(await pictureFeatures(samples, modules)), labels_N };
}

/** Features [N,D] of any pictures. */
export async function pictureFeatures(
  samples: readonly PictureSample[],
  modules: ExtractModules,
): Promise<FeatureRows> {
  const dimensions = modules.network.featureWidth;
  return {
    features_ND: await pictureOutputs(samples, { output: 'features', columns: dimensions }, modules),
    dimensions,
  };
}

/** What the network makes of any pictures through the evaluation transform, in order: float32 [N, columns]. */
export async function pictureOutputs(
  samples: readonly PictureSample[],
  { output, columns }: { readonly output: 'features' | 'logits'; readonly columns: number },
  { engine, network, pictures, signal, onProgress }: ExtractModules,
): Promise<Float32Array> {
  const outputs = new Float32Array(samples.length * columns);
  for (let begin = 0; begin < samples.length; begin += BATCH) {
    throwIfAborted(signal);
    const located = samples.slice(begin, begin + BATCH).map((sample) => sample.located);
    const pixels = await pictures.evalPixels(located, signal);
    outputs.set(encodePixels(engine, network, pixels, output), begin * columns);
    onProgress?.(Math.min(begin + BATCH, samples.length), samples.length);
  }
  return outputs;
}
