import { pixelsToTensor, type Tensor2D } from '../../engine/index.ts';
import { ClipModel } from '../../models/clip/clip-model.ts';
import type { Pretrained, PretrainedBackbone, PretrainedClip } from '../../models/formats/pretrained.ts';
import { shapesOf, visionOf } from '../../models/formats/pretrained.ts';
import { shapedWeights } from '../../models/formats/weights.ts';
import { backboneOf } from '../../transfer/backbone.ts';
import { TransferNetwork } from '../../transfer/network.ts';
import type { VerifySamples } from './verify-samples.ts';

/** What covey itself computes for the samples: unit-length embeddings [count, width]; of a backbone the features as they are. */
export interface ReferenceEmbeddings {
  readonly images: Float32Array;
  /** Undefined for a backbone. */
  readonly texts: Float32Array | undefined;
  readonly width: number;
  readonly pixels_BHWC: Float32Array;
  /** [count, contextLength], padded with 0. */
  readonly ids: Int32Array | undefined;
}

/** Runs on the engine that is loaded; frees what it makes. */
export function referenceEmbeddings(model: Pretrained, samples: VerifySamples): ReferenceEmbeddings {
  const { imageSize } = visionOf(model);
  const { mean, std } = model.preprocess;
  const shape = [samples.count, imageSize, imageSize, 3] as const;
  const pixels = pixelsToTensor(samples.pixels, shape, { mean, std, precision: 'fp32' });
  try {
    const pixels_BHWC = new Float32Array(pixels.dataSync<'float32'>());
    if (model.kind === 'backbone') {
      const images = readAndDispose(backboneFeatures(model, pixels));
      return { images, texts: undefined, width: images.length / samples.count, pixels_BHWC, ids: undefined };
    }
    return { ...clipEmbeddings(model, pixels, samples), pixels_BHWC };
  } finally {
    pixels.dispose();
  }
}

type Pixels = ReturnType<typeof pixelsToTensor>;

function clipEmbeddings({ config, weights, tokenizer }: PretrainedClip, pixels: Pixels, samples: VerifySamples) {
  const { contextLength } = config.text;
  const ids = new Int32Array(samples.count * contextLength);
  for (const [i, caption] of samples.captions.entries()) ids.set(tokenizer.encode(caption), i * contextLength);
  const model = new ClipModel(config, { seed: 0, precision: 'fp32', init: 'zeros' });
  try {
    model.setWeights(weights);
    const images = readAndDispose(model.encodeImage(pixels));
    const texts = readAndDispose(model.encodeText(ids, samples.count));
    return { images, texts, width: config.embedDim, ids };
  } finally {
    model.dispose();
  }
}

function backboneFeatures(model: PretrainedBackbone, pixels: Pixels): Tensor2D {
  const { vision, quickGelu } = model;
  const { mean, std } = model.preprocess;
  const tensors = shapedWeights(shapesOf(model), model.weights);
  const source = backboneOf(tensors, { vision, quickGelu, mean, std, origin: 'the export' });
  const network = new TransferNetwork(source, { seed: 0, precision: 'fp32' });
  try {
    return network.features(pixels);
  } finally {
    network.dispose();
  }
}

function readAndDispose(tensor: Tensor2D): Float32Array {
  const values = new Float32Array(tensor.dataSync<'float32'>());
  tensor.dispose();
  return values;
}
