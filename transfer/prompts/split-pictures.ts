import { CoveyError } from '../../common/errors.ts';
import { mixKey } from '../../common/random.ts';

export interface PictureSplit {
  /** Rows that templates are chosen by. */
  readonly search: Int32Array;
  /** Rows that what was chosen is judged by. */
  readonly judge: Int32Array;
}

/**
 * Splits pictures in two, each class in proportion as far as whole pictures allow. Unlike a split of labels to learn from, a class with a single picture
 * goes to one side whole: nothing is learnt of it. A function of labels, share and seed alone; rows in order.
 * @param share of the pictures, to choose by
 * @throws CoveyError INVALID_ARGUMENT where a side would be empty
 */
export function splitPictures(labels_N: Int32Array, share: number, seed: number): PictureSplit {
  const keyed = Array.from(labels_N, (label, row) => ({
    row,
    // Classes in an order of their own, so that of those with one picture not only the first ones are chosen by.
    order: [...mixKey('class', seed, label), label, ...mixKey('picture', seed, row)],
  }));
  keyed.sort((a, b) => {
    const at = a.order.findIndex((value, i) => value !== b.order[i]);
    return at < 0 ? a.row - b.row : a.order[at]! - b.order[at]!;
  });
  const chosen = new Uint8Array(labels_N.length);
  // Systematic sampling: along the sorted pictures every run has its share, to within one.
  for (const [i, { row }] of keyed.entries()) {
    chosen[row] = Math.floor((i + 1) * share + ROUNDING) - Math.floor(i * share + ROUNDING);
  }
  const rows = Int32Array.from(labels_N.keys());
  const split = { search: rows.filter((row) => chosen[row] === 1), judge: rows.filter((row) => chosen[row] === 0) };
  if (split.search.length > 0 && split.judge.length > 0) return split;
  throw new CoveyError(
    'INVALID_ARGUMENT',
    `Cannot search for templates: of ${labels_N.length} pictures ${split.search.length} are left to choose by and ${split.judge.length} to judge by; both need some: give more pictures or another --validation`,
    { fields: { search: split.search.length, judge: split.judge.length } },
  );
}

/** Half a picture, so that a share of one half takes the middle and not the last one. */
const ROUNDING = 0.5;
