import { CoveyError, throwIfAborted } from '../../common/errors.ts';
import { type Engine, pixelsToTensor, tf } from '../../engine/index.ts';
import type { ClipModel } from '../../models/clip/clip-model.ts';
import type { Tokenizer } from '../../models/tokenizer/tokenizer.ts';
import { concatenated } from './concatenated.ts';

/** A picture to classify. */
export interface EvalImage {
  readonly sampleId: string;
  /** Name of its class; must be one of the class names. */
  readonly label: string;
  /** uint8 RGB [side, side, 3], after the evaluation transform. */
  readonly pixels: Uint8Array;
}

export interface ZeroShotOptions {
  readonly classNames: readonly string[];
  /** `{}` stands for the class name. Default: the bare name. */
  readonly templates?: readonly string[];
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
  /** Pictures and captions encoded at once. Default 128. */
  readonly batch?: number;
}

export interface ZeroShotModules {
  readonly engine: Engine;
  readonly model: ClipModel;
  readonly tokenizer: Tokenizer;
}

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

const BATCH_DEFAULT = 128;
const BEST_COUNT = 5;

/**
 * Zero-shot classification as in CLIP (Radford et al. 2021, §3.1): each class is the mean of its normalised template embeddings,
 * normalised again; a picture belongs to the class of highest cosine. Ties go to the class that comes first. Throws
 * INVALID_ARGUMENT for a label that is no class.
 */
export async function evaluateZeroShot(
  images: AsyncIterable<EvalImage>,
  options: ZeroShotOptions,
  modules: ZeroShotModules,
  signal?: AbortSignal,
): Promise<ZeroShotResult> {
  const classIndex = new Map(options.classNames.map((name, index) => [name, index]));
  const classEmbeddings = encodeClasses(options, modules);
  const embedDim = modules.model.config.embedDim;
  const predictions: Prediction[] = [];
  const embedded: Float32Array[] = [];
  const flush = (batch: EvalImage[]): void => {
    const embeddings = encodeImages(batch, options, modules);
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
    if (batch.length < (options.batch ?? BATCH_DEFAULT)) continue;
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

/** Unit-length embeddings of the classes, [classes, embedDim]: mean over templates, normalised again. */
export function encodeClasses(options: ZeroShotOptions, { engine, model, tokenizer }: ZeroShotModules): Float32Array {
  const templates = options.templates ?? ['{}'];
  const { embedDim } = model.config;
  const sums = new Float32Array(options.classNames.length * embedDim);
  const size = options.batch ?? BATCH_DEFAULT;
  for (const template of templates) {
    for (let begin = 0; begin < options.classNames.length; begin += size) {
      const names = options.classNames.slice(begin, begin + size);
      const ids = new Int32Array(names.length * tokenizer.contextLength);
      names.forEach((name, row) => {
        ids.set(tokenizer.encode(template.replace('{}', name)), row * tokenizer.contextLength);
      });
      const embeddings = tf.tidy(() => readAll(engine, model.encodeText(ids, names.length)));
      embeddings.forEach((value, i) => {
        sums[begin * embedDim + i]! += value;
      });
    }
  }
  for (let row = 0; row < options.classNames.length; row++)
    normalise(sums.subarray(row * embedDim, (row + 1) * embedDim));
  return sums;
}

function encodeImages(
  batch: readonly EvalImage[],
  options: ZeroShotOptions,
  { engine, model }: ZeroShotModules,
): Float32Array {
  const side = model.config.vision.imageSize;
  const pixels = new Uint8Array(batch.length * side * side * 3);
  batch.forEach((image, row) => {
    pixels.set(image.pixels, row * side * side * 3);
  });
  const { mean, std } = options;
  return tf.tidy(() => {
    const x_BHWC = pixelsToTensor(pixels, [batch.length, side, side, 3], { mean, std, precision: 'fp32' });
    return readAll(engine, model.encodeImage(x_BHWC));
  }) as unknown as Float32Array;
}

function readAll(engine: Engine, embeddings_BE: tf.Tensor): Float32Array {
  const values = new Float32Array(embeddings_BE.size);
  engine.readInto(embeddings_BE, values);
  return values;
}

function normalise(row: Float32Array): void {
  const norm = Math.hypot(...row) || 1;
  row.forEach((value, i) => {
    row[i] = value / norm;
  });
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
