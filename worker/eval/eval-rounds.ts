/**
 * Which rows of held-out data a lane computes: rounds of `lanes` fixed blocks of `laneBatch` rows, one behind another. A pure function, so
 * every row is computed in the same shape and beside the same others at any number of workers. Blocks beyond the end are padded.
 */
export interface EvalGeometry {
  readonly lanes: number;
  readonly laneBatch: number;
}

export function roundsOf(rows: number, { lanes, laneBatch }: EvalGeometry): number {
  return Math.ceil(rows / (lanes * laneBatch));
}

/** First row of a lane's block. */
export function blockBegin(round: number, lane: number, { lanes, laneBatch }: EvalGeometry): number {
  return (round * lanes + lane) * laneBatch;
}
