import { concatenated } from '../../../common/concatenated.ts';
import { pickedRows } from '../../../common/picked-rows.ts';
import { type Engine, pixelsToTensor, tf } from '../../../engine/index.ts';
import { classVotes, nearestNeighbours } from '../../../models/linear/knn.ts';
import { sweepL2 } from '../../../models/linear/l2-sweep.ts';
import { type LabelledFeatures, predictedClasses, scores } from '../../../models/linear/logistic-regression.ts';
import type { Tokenizer } from '../../../models/tokenizer/tokenizer.ts';
import { evaluatedModel } from '../../../worker/eval/evaluated-model.ts';
import { placeOf, shareWithin } from '../../../worker/eval/retrieval.ts';
import type { TrainedModel } from '../../../worker/objectives/objective.ts';
import type { JudgedPictures } from './icon-pictures.ts';

const BATCH = 128;
const NEIGHBOURS = 20;
const TEMPERATURE = 0.07;
const PENALTIES = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5];
/** Of the training pictures, those that choose the probe's penalty: every fifth. */
const VALIDATION_EVERY = 5;
const PROBE = { tolerance: 1e-3, iterationsMax: 300 };

export interface JudgeModules {
  readonly engine: Engine;
  readonly train: JudgedPictures;
  readonly test: JudgedPictures;
  readonly classes: number;
  readonly side: number;
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
}

export interface Verdict {
  /** Share of held-out pictures whose category is right. */
  readonly probe: number;
  readonly knn: number;
  readonly probeL2: number;
}

/** Linear probe and kNN of the backbone's features on icon category: fitted to the training styles, scored on the held-out one. */
export function judge(model: TrainedModel, modules: JudgeModules): Verdict {
  const { classes } = modules;
  const { features } = evaluatedModel(model);
  const [train, test] = [modules.train, modules.test].map((pictures) => labelled(features, pictures, modules));
  const neighbours = nearestNeighbours(train!, test!.features_ND, { count: NEIGHBOURS });
  const votes = classVotes(neighbours, train!.labels_N, { classes, temperature: TEMPERATURE });
  const voted = predictedClasses(votes, classes);
  const knn = voted.filter((one, i) => one === test!.labels_N[i]).length / voted.length;

  const scale = standardiser(train!);
  const [fit, validation] = split(scale(train!));
  const { best } = sweepL2(fit, validation, { ...PROBE, classes, l2s: PENALTIES });
  const probe = scores(best.fit.classifier, scale(test!)).accuracy;
  return { probe, knn, probeL2: best.l2 };
}

export interface ZeroShot {
  readonly top1: number;
  readonly top5: number;
}

/** The held-out drawings among the names of all of them, as the demo judges; undefined where no text tower was trained. */
export function judgeZeroShot(
  model: TrainedModel,
  tokenizer: Tokenizer,
  names: readonly string[],
  modules: JudgeModules,
): ZeroShot | undefined {
  const { embeddings } = evaluatedModel(model);
  if (embeddings === undefined) return undefined;
  const { test } = modules;
  const image_ND = encodeAll(embeddings.image, test, modules);
  const texts: Float32Array[] = [];
  for (let begin = 0; begin < names.length; begin += BATCH) {
    const some = names.slice(begin, begin + BATCH);
    const ids = Int32Array.from(some.flatMap((name) => [...tokenizer.encode(name)]));
    texts.push(read(modules.engine, embeddings.text(ids, some.length)));
  }
  const width = image_ND.length / test.count;
  const classIndex = new Map(names.map((name, i) => [name, i]));
  const places = tf.tidy(() => {
    const class_CD = tf.tensor2d(concatenated(texts), [names.length, width]);
    const similarities = tf
      .matMul(tf.tensor2d(image_ND, [test.count, width]), class_CD, false, true)
      .dataSync<'float32'>();
    return test.captions.map((caption, i) =>
      placeOf(similarities.subarray(i * names.length, (i + 1) * names.length), classIndex.get(caption)!),
    ) as unknown as tf.TensorContainer;
  }) as unknown as number[];
  return { top1: shareWithin(places, 1), top5: shareWithin(places, 5) };
}

/** Features of the pictures that have a category. */
function labelled(
  features: (x_BHWC: tf.Tensor) => tf.Tensor2D,
  pictures: JudgedPictures,
  modules: JudgeModules,
): LabelledFeatures {
  const all = encodeAll(features, pictures, modules);
  const dimensions = all.length / pictures.count;
  const rows = Array.from(pictures.categories.keys()).filter((row) => pictures.categories[row]! >= 0);
  return rowsOf({ features_ND: all, labels_N: pictures.categories, dimensions }, rows);
}

function encodeAll(
  encode: (x_BHWC: tf.Tensor) => tf.Tensor2D,
  { pixels, count }: JudgedPictures,
  { engine, side, mean, std }: JudgeModules,
): Float32Array {
  const bytes = side * side * 3;
  const parts: Float32Array[] = [];
  for (let begin = 0; begin < count; begin += BATCH) {
    const size = Math.min(BATCH, count - begin);
    const some = pixels.subarray(begin * bytes, (begin + size) * bytes);
    const x_BHWC = pixelsToTensor(some, [size, side, side, 3], { mean, std, precision: 'bf16' });
    parts.push(read(engine, encode(x_BHWC)));
    x_BHWC.dispose();
  }
  return concatenated(parts);
}

function read(engine: Engine, rows: tf.Tensor2D): Float32Array {
  const values = new Float32Array(rows.size);
  engine.readInto(rows, values);
  rows.dispose();
  return values;
}

function rowsOf({ features_ND, labels_N, dimensions }: LabelledFeatures, rows: readonly number[]): LabelledFeatures {
  const chosen = pickedRows(features_ND, dimensions, rows);
  return { features_ND: chosen, labels_N: Int32Array.from(rows, (row) => labels_N[row]!), dimensions };
}

function split(samples: LabelledFeatures): [LabelledFeatures, LabelledFeatures] {
  const rows = Array.from(samples.labels_N.keys());
  const isValidation = (row: number) => row % VALIDATION_EVERY === 0;
  return [
    rowsOf(
      samples,
      rows.filter((row) => !isValidation(row)),
    ),
    rowsOf(samples, rows.filter(isValidation)),
  ];
}

/** Every dimension to mean 0 and deviation 1 on the training pictures, as MAE's probe does: a penalty then weighs all features alike. */
function standardiser({ features_ND, dimensions }: LabelledFeatures): (samples: LabelledFeatures) => LabelledFeatures {
  const rows = features_ND.length / dimensions;
  const mean = new Float64Array(dimensions);
  const deviation = new Float64Array(dimensions);
  for (let i = 0; i < features_ND.length; i++) mean[i % dimensions]! += features_ND[i]! / rows;
  for (let i = 0; i < features_ND.length; i++)
    deviation[i % dimensions]! += (features_ND[i]! - mean[i % dimensions]!) ** 2 / rows;
  return (samples) => ({
    ...samples,
    features_ND: samples.features_ND.map(
      (value, i) => (value - mean[i % dimensions]!) / Math.sqrt(deviation[i % dimensions]! + 1e-6),
    ),
  });
}
