import { setImmediate } from 'node:timers/promises';
import { throwIfAborted } from '../../common/errors.ts';
import { pickedRows } from '../../common/picked-rows.ts';
import { type Engine, tf } from '../../engine/index.ts';

/** Legend: N pictures, K classes, V vectors (one or more per class), E numbers of an embedding; everything row-major. */

/** A classifier of unit-length embeddings: a class's score is the cosine with its vector, or with the nearest of its vectors. */
export interface PromptClassifier {
  readonly classes: number;
  /** Unit-length rows. */
  readonly vectors_VE: Float32Array;
  /** Class of each vector, ascending. Absent: vector k is class k's. */
  readonly classOf_V?: Int32Array | undefined;
}

export interface Embeddings {
  /** Unit-length rows. */
  readonly values_NE: Float32Array;
  readonly columns: number;
}

export interface ClassifyModules {
  readonly engine: Engine;
  readonly signal?: AbortSignal | undefined;
  /** Floats of a block of similarities: what is in memory at once, however many pictures and classes there are. Default 2²². */
  readonly tileFloats?: number | undefined;
}

const TILE_FLOATS = 2 ** 22;

/**
 * Cosines of rows with every key, a block of rows after the other; each block is overwritten by the next.
 * @param rows which rows, in that order. Default: all
 * @param onRow is given a row's number and its similarities with each key
 */
export async function similarityRows(
  { values_NE, columns }: Embeddings,
  keys_VE: Float32Array,
  { engine, rows, signal, tileFloats = TILE_FLOATS }: ClassifyModules & { readonly rows?: Int32Array | undefined },
  onRow: (row: number, similarities_V: Float32Array) => void,
): Promise<void> {
  const keys = keys_VE.length / columns;
  const count = rows?.length ?? values_NE.length / columns;
  const tile = Math.max(1, Math.min(count, Math.floor(tileFloats / Math.max(1, keys))));
  const similarities = new Float32Array(tile * keys);
  const keysTensor_VE = tf.tensor2d(keys_VE, [keys, columns]);
  try {
    for (let begin = 0; begin < count; begin += tile) {
      // Lets an interrupt in: the products themselves hold the thread.
      await setImmediate();
      throwIfAborted(signal);
      const size = Math.min(tile, count - begin);
      const some = similarities.subarray(0, size * keys);
      tf.tidy(() => {
        const block_BE = tf.tensor2d(blockOf(values_NE, columns, rows, begin, size), [size, columns]);
        engine.readInto(tf.matMul(block_BE, keysTensor_VE, false, true), some);
      });
      for (let i = 0; i < size; i++) {
        onRow(rows?.[begin + i] ?? begin + i, some.subarray(i * keys, (i + 1) * keys));
      }
    }
  } finally {
    keysTensor_VE.dispose();
  }
}

function blockOf(
  values_NE: Float32Array,
  columns: number,
  rows: Int32Array | undefined,
  begin: number,
  size: number,
): Float32Array {
  return rows === undefined
    ? values_NE.subarray(begin * columns, (begin + size) * columns)
    : pickedRows(values_NE, columns, rows.subarray(begin, begin + size));
}

/** Scores of the classes for one picture: of several vectors of a class the nearest counts. Into `scores_K`. */
export function classScores(
  similarities_V: Float32Array,
  { classOf_V }: PromptClassifier,
  scores_K: Float32Array,
): Float32Array {
  if (classOf_V === undefined) return similarities_V;
  scores_K.fill(Number.NEGATIVE_INFINITY);
  for (let v = 0; v < classOf_V.length; v++) {
    const k = classOf_V[v]!;
    if (similarities_V[v]! > scores_K[k]!) scores_K[k] = similarities_V[v]!;
  }
  return scores_K;
}

/** The class of highest score of every picture, [N]; a tie goes to the class that comes first. */
export async function predictClasses(
  embeddings: Embeddings,
  classifier: PromptClassifier,
  modules: ClassifyModules,
): Promise<Int32Array> {
  const predicted_N = new Int32Array(embeddings.values_NE.length / embeddings.columns);
  const buffer_K = new Float32Array(classifier.classes);
  await similarityRows(embeddings, classifier.vectors_VE, modules, (row, similarities) => {
    const scores_K = classScores(similarities, classifier, buffer_K);
    let best = 0;
    for (let k = 1; k < scores_K.length; k++) if (scores_K[k]! > scores_K[best]!) best = k;
    predicted_N[row] = best;
  });
  return predicted_N;
}

/** The classes of highest score of every picture, best first, and the place of the right one. */
export interface RankedPictures {
  readonly bestCount: number;
  /** [N, bestCount] */
  readonly best_NB: Int32Array;
  readonly similarity_NB: Float32Array;
  /** Place of the right class, 0 = first, [N]. */
  readonly rank_N: Int32Array;
}

const BEST_COUNT = 5;

/** Ranks the classes for every picture. A tie goes to the class that comes first. @param labels_N right class of each picture */
export async function rankClasses(
  embeddings: Embeddings,
  labels_N: Int32Array,
  classifier: PromptClassifier,
  modules: ClassifyModules,
): Promise<RankedPictures> {
  const bestCount = Math.min(BEST_COUNT, classifier.classes);
  const best_NB = new Int32Array(labels_N.length * bestCount);
  const similarity_NB = new Float32Array(labels_N.length * bestCount);
  const rank_N = new Int32Array(labels_N.length);
  const buffer_K = new Float32Array(classifier.classes);
  await similarityRows(embeddings, classifier.vectors_VE, modules, (row, similarities) => {
    const scores_K = classScores(similarities, classifier, buffer_K);
    const truth = labels_N[row]!;
    const own = scores_K[truth]!;
    const best = best_NB.subarray(row * bestCount, (row + 1) * bestCount);
    let rank = 0;
    let found = 0;
    for (let k = 0; k < scores_K.length; k++) {
      const score = scores_K[k]!;
      if (score > own || (score === own && k < truth)) rank++;
      // Insertion: of equal scores the earlier class stays before the later one.
      let at = found;
      while (at > 0 && scores_K[best[at - 1]!]! < score) at--;
      if (at >= bestCount) continue;
      best.copyWithin(at + 1, at, Math.min(found, bestCount - 1));
      best[at] = k;
      if (found < bestCount) found++;
    }
    rank_N[row] = rank;
    best.forEach((k, i) => {
      similarity_NB[row * bestCount + i] = scores_K[k]!;
    });
  });
  return { bestCount, best_NB, similarity_NB, rank_N };
}

/** The classes of highest score of one picture by name, best first; cosine similarity. */
export function bestClasses(
  { best_NB, similarity_NB, bestCount }: RankedPictures,
  row: number,
  classNames: readonly string[],
): { readonly className: string; readonly similarity: number }[] {
  return Array.from({ length: bestCount }, (_, i) => ({
    className: classNames[best_NB[row * bestCount + i]!]!,
    similarity: similarity_NB[row * bestCount + i]!,
  }));
}

export interface RankSummary {
  readonly samples: number;
  readonly top1: number;
  readonly top5: number;
  /** Of the right class, from 1. */
  readonly meanRank: number;
  readonly medianRank: number;
}

/** What places of right answers (0 = first) come to. At least one. */
export function rankSummary(rank_N: Int32Array): RankSummary {
  const samples = rank_N.length;
  const within = (places: number) => rank_N.reduce((count, rank) => count + Number(rank < places), 0) / samples;
  return {
    samples,
    top1: within(1),
    top5: within(5),
    meanRank: rank_N.reduce((sum, rank) => sum + rank + 1, 0) / samples,
    medianRank: rank_N.toSorted()[Math.floor(samples / 2)]! + 1,
  };
}
