/** What every benchmark returns; `ratio` > 1 means that covey is better. Null: there was no peer to compare with. */
export interface BenchRow {
  readonly case: string;
  readonly ours: number;
  readonly peer: number | null;
  readonly ratio: number | null;
  readonly unit: string;
}

export interface BenchOptions {
  /** A shorter run: fewer repetitions, the same cases. */
  readonly quick: boolean;
  readonly json: boolean;
}

/** A table for people; a benchmark whose rows hold more than a `BenchRow` exports `table(rows)` and makes its own. */
export interface BenchTable {
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  /** Lines below the table. */
  readonly notes: readonly string[];
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
