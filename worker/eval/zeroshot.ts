import { CoveyError, throwIfAborted } from '../../common/errors.ts';
import { concatenated } from './concatenated.ts';
import { ENCODE_BATCH, encodePictures, type Normalisation, type TextModules } from './encode-batch.ts';
import { encodeClasses, type TextClassifierOptions } from './text-classifier.ts';

/** A picture to classify. */
export interface EvalImage {
  readonly sampleId: string;
  /** Name of its class; must be one of the class names. */
  readonly label: string;
  /** uint8 RGB [side, side, 3], after the evaluation transform. */
  readonly pixels: Uint8Array;
}

/** `batch`: also of pictures. */
export interface ZeroShotOptions extends TextClassifierOptions, Normalisation {}

export interface Prediction {
  readonly sampleId: string;
  readonly label: string;
  /** 0-based place of the right class. */
  readonly rank: number;
  /** The five best classes, best first; cosine similarity. */
  readonly best: readonly { readonly className: string; readonly similarity: number }[];
}

export interface ZeroShotResult {
  readonly classes: number;
  readonly samples: number;
  readonly top1: number;
  readonly top5: number;
  readonly meanRank: number;
  readonly medianRank: number;
  readonly predictions: readonly Prediction[];
  /** L2-normalised, [samples, embedDim] and [classes, embedDim], for retrieval. */
  readonly imageEmbeddings: Float32Array;
  readonly classEmbeddings: Float32Array;
}

const BEST_COUNT = 5;

/**
 * Zero-shot classification as in CLIP (Radford et al. 2021, §3.1): each class is the mean of its normalised template embeddings,
 * normalised again; a picture belongs to the class of highest cosine. Ties go to the class that comes first. Throws
 * INVALID_ARGUMENT for a label that is no class.
 */
export async function evaluateZeroShot(
  images: AsyncIterable<EvalImage>,
  options: ZeroShotOptions,
  modules: TextModules,
  signal?: AbortSignal,
): Promise<ZeroShotResult> {
  const classIndex = new Map(options.classNames.map((name, index) => [name, index]));
  const classEmbeddings = encodeClasses(options, modules);
  const embedDim = modules.model.config.embedDim;
  const predictions: Prediction[] = [];
  const embedded: Float32Array[] = [];
  const flush = (batch: EvalImage[]): void => {
    const embeddings = encodePictures(joined(batch), options, modules);
    embedded.push(embeddings);
    batch.forEach((image, row) => {
      const truth = classIndex.get(image.label);
      if (truth === undefined) {
        throw new CoveyError(
          'INVALID_ARGUMENT',
          `Cannot classify ${image.sampleId}: its label '${image.label}' is not among the ${classIndex.size} classes`,
        );
      }
      const embedding = embeddings.subarray(row * embedDim, (row + 1) * embedDim);
      predictions.push({
        sampleId: image.sampleId,
        label: image.label,
        ...ranked(embedding, classEmbeddings, truth, options.classNames),
      });
    });
  };
  let batch: EvalImage[] = [];
  for await (const image of images) {
    throwIfAborted(signal);
    batch.push(image);
    if (batch.length < (options.batch ?? ENCODE_BATCH)) continue;
    flush(batch);
    batch = [];
  }
  if (batch.length > 0) flush(batch);
  return {
    ...summary(predictions),
    classes: classIndex.size,
    predictions,
    classEmbeddings,
    imageEmbeddings: concatenated(embedded),
  };
}

function joined(images: readonly EvalImage[]): Uint8Array {
  const bytes = images[0]!.pixels.length;
  const pixels = new Uint8Array(images.length * bytes);
  images.forEach((image, row) => {
    pixels.set(image.pixels, row * bytes);
  });
  return pixels;
}

function ranked(
  embedding: Float32Array,
  classEmbeddings: Float32Array,
  truth: number,
  classNames: readonly string[],
): Pick<Prediction, 'rank' | 'best'> {
  const embedDim = embedding.length;
  const similarities = new Float64Array(classNames.length);
  for (let c = 0; c < classNames.length; c++) {
    let dot = 0;
    for (let d = 0; d < embedDim; d++) dot += embedding[d]! * classEmbeddings[c * embedDim + d]!;
    similarities[c] = dot;
  }
  const own = similarities[truth]!;
  let rank = 0;
  similarities.forEach((similarity, c) => {
    if (similarity > own || (similarity === own && c < truth)) rank++;
  });
  const order = Array.from(similarities.keys()).sort((a, b) => similarities[b]! - similarities[a]! || a - b);
  const best = order.slice(0, BEST_COUNT).map((c) => ({ className: classNames[c]!, similarity: similarities[c]! }));
  return { rank, best };
}

function summary(
  predictions: readonly Prediction[],
): Pick<ZeroShotResult, 'samples' | 'top1' | 'top5' | 'meanRank' | 'medianRank'> {
  const samples = predictions.length;
  if (samples === 0) throw new CoveyError('INVALID_ARGUMENT', 'Cannot evaluate: there are no pictures to classify');
  const ranks = predictions.map((prediction) => prediction.rank).sort((a, b) => a - b);
  const share = (places: number) => ranks.filter((rank) => rank < places).length / samples;
  return {
    samples,
    top1: share(1),
    top5: share(5),
    meanRank: ranks.reduce((sum, rank) => sum + rank + 1, 0) / samples,
    medianRank: ranks[Math.floor(samples / 2)]! + 1,
  };
}
