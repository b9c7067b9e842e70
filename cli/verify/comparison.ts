/** One output of an export against covey's own numbers. */
export interface Comparison {
  readonly format: string;
  /** Below the export's folder. */
  readonly file: string;
  readonly output: string;
  /** Largest absolute difference of two values. */
  readonly maxAbsDifference: number;
  /** The most that passes; 0 where bits must be equal. */
  readonly tolerance: number;
}

export const passes = ({ maxAbsDifference, tolerance }: Comparison) => maxAbsDifference <= tolerance;

/** Infinity where the counts differ or a value is no number. */
export function maxAbsDifference(found: ArrayLike<number>, expected: ArrayLike<number>): number {
  if (found.length !== expected.length) return Number.POSITIVE_INFINITY;
  let largest = 0;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(found[i]! - expected[i]!);
    if (Number.isNaN(difference)) return Number.POSITIVE_INFINITY;
    if (difference > largest) largest = difference;
  }
  return largest;
}
