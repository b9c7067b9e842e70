import { concatenated } from '../../common/concatenated.ts';
import { CoveyError, throwIfAborted } from '../../common/errors.ts';
import { bestClasses, type RankSummary, rankClasses, rankSummary } from './classify.ts';
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

export interface ZeroShotResult extends RankSummary {
  readonly classes: number;
  readonly predictions: readonly Prediction[];
  /** L2-normalised, [samples, embedDim] and [classes, embedDim], for retrieval. */
  readonly imageEmbeddings: Float32Array;
  readonly classEmbeddings: Float32Array;
}

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
  const { embedDim } = modules.model.config;
  const embedded: Float32Array[] = [];
  const found: { readonly sampleId: string; readonly label: string; readonly truth: number }[] = [];
  let batch: EvalImage[] = [];
  const flush = (): void => {
    if (batch.length > 0) embedded.push(encodePictures(joined(batch), options, modules));
    batch = [];
  };
  for await (const image of images) {
    throwIfAborted(signal);
    const { sampleId, label } = image;
    const truth = classIndex.get(label);
    if (truth === undefined) {
      throw new CoveyError(
        'INVALID_ARGUMENT',
        `Cannot classify ${sampleId}: its label '${label}' is not among the ${classIndex.size} classes`,
      );
    }
    found.push({ sampleId, label, truth });
    if (batch.push(image) >= (options.batch ?? ENCODE_BATCH)) flush();
  }
  flush();
  const classEmbeddings = encodeClasses(options, modules);
  const imageEmbeddings = concatenated(embedded);
  const ranked = await rankClasses(
    { values_NE: imageEmbeddings, columns: embedDim },
    Int32Array.from(found, ({ truth }) => truth),
    { classes: options.classNames.length, vectors_VE: classEmbeddings },
    { engine: modules.engine, signal },
  );
  if (found.length === 0)
    throw new CoveyError('INVALID_ARGUMENT', 'Cannot evaluate: there are no pictures to classify');
  const predictions = found.map(({ sampleId, label }, n): Prediction => {
    return { sampleId, label, rank: ranked.rank_N[n]!, best: bestClasses(ranked, n, options.classNames) };
  });
  return {
    ...rankSummary(ranked.rank_N),
    classes: classIndex.size,
    predictions,
    classEmbeddings,
    imageEmbeddings,
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
