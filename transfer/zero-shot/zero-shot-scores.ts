import { mean } from '../../common/mean.ts';
import { type RankedPictures, type RankSummary, rankSummary } from '../../worker/eval/classify.ts';

export interface ClassScore {
  readonly name: string;
  /** Of this class among those judged; 0: it can only be a wrong answer. */
  readonly pictures: number;
  /** Shares of its pictures, null without any. */
  readonly top1: number | null;
  readonly top5: number | null;
  /** Pictures of other classes that were taken for it. */
  readonly takenWrongly: number;
}

export interface ConfusedPair {
  /** Indices of classes. */
  readonly truth: number;
  readonly predicted: number;
  /** Pictures of `truth` that were taken for `predicted`. */
  readonly count: number;
  /** Some of them, those with the highest score first: rows. */
  readonly examples: readonly number[];
}

export interface ZeroShotScores extends RankSummary {
  readonly classes: number;
  /** Mean of top-1 over the classes that occur, each counting one. */
  readonly classAccuracy: number;
  readonly perClass: readonly ClassScore[];
  /** Every confusion that occurs, the most frequent first, then by the classes' order. */
  readonly confusions: readonly ConfusedPair[];
}

const TOP = 5;
const EXAMPLES_MAX = 3;

/** Everything that is counted about ranked pictures. */
export function zeroShotScores(
  { best_NB, similarity_NB, rank_N, bestCount }: RankedPictures,
  labels_N: Int32Array,
  classNames: readonly string[],
): ZeroShotScores {
  const classes = classNames.length;
  const counts = { pictures: new Int32Array(classes), top1: new Int32Array(classes), top5: new Int32Array(classes) };
  const takenWrongly = new Int32Array(classes);
  const pairs = new Map<number, number[]>();
  labels_N.forEach((truth, row) => {
    const rank = rank_N[row]!;
    counts.pictures[truth]!++;
    if (rank < 1) counts.top1[truth]!++;
    if (rank < TOP) counts.top5[truth]!++;
    if (rank === 0) return;
    const predicted = best_NB[row * bestCount]!;
    takenWrongly[predicted]!++;
    const key = truth * classes + predicted;
    const rows = pairs.get(key);
    if (rows === undefined) pairs.set(key, [row]);
    else rows.push(row);
  });
  const perClass = classNames.map((name, k): ClassScore => {
    const pictures = counts.pictures[k]!;
    const share = (right: number) => (pictures === 0 ? null : right / pictures);
    return {
      name,
      pictures,
      top1: share(counts.top1[k]!),
      top5: share(counts.top5[k]!),
      takenWrongly: takenWrongly[k]!,
    };
  });
  const confusions = [...pairs]
    .sort(([a, rowsA], [b, rowsB]) => rowsB.length - rowsA.length || a - b)
    .map(([key, rows]): ConfusedPair => {
      const surest = [...rows].sort((a, b) => similarity_NB[b * bestCount]! - similarity_NB[a * bestCount]! || a - b);
      return {
        truth: Math.floor(key / classes),
        predicted: key % classes,
        count: rows.length,
        examples: surest.slice(0, EXAMPLES_MAX),
      };
    });
  const recalls = perClass.flatMap(({ top1 }) => top1 ?? []);
  return {
    ...rankSummary(rank_N),
    classes,
    classAccuracy: mean(recalls),
    perClass,
    confusions,
  };
}
