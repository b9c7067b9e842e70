/** What transformer blocks cost, for the two towers. */

export interface BlocksShape {
  readonly width: number;
  readonly layers: number;
  readonly mlpRatio: number;
  readonly tokens: number;
  readonly causal: boolean;
  /** Rows for which the last block's output projection and perceptron are computed. Default 1: the pooled token. */
  readonly pooledRows?: number;
}

/** Of a product [rows, inner]·[inner, columns]. */
export function product(rows: number, inner: number, columns: number): number {
  return 2 * rows * inner * columns;
}

/** One item through all blocks: attention over visible pairs only, the last block's rest for the pooled rows only. */
export function blocksFlops({ width, layers, mlpRatio, tokens, causal, pooledRows = 1 }: BlocksShape): number {
  const pairs = causal ? (tokens * (tokens + 1)) / 2 : tokens ** 2;
  const mixing = product(tokens, width, 3 * width) + 2 * product(pairs, width, 1);
  const perRow = product(1, width, width) + 2 * product(1, width, width * mlpRatio);
  return layers * mixing + ((layers - 1) * tokens + pooledRows) * perRow;
}

/** Per block and item: about 20 vectors of the width per token, 6 of the hidden width, 4 rows of attention scores per head. */
export function blockActivationFloats(shape: {
  readonly tokens: number;
  readonly width: number;
  readonly heads: number;
  readonly mlpRatio: number;
}): number {
  const { tokens, width, heads, mlpRatio } = shape;
  return tokens * (width * (20 + 6 * mlpRatio) + 4 * heads * tokens);
}
