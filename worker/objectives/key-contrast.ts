import { type Engine, type Tensor1D, type Tensor2D, tf } from '../../engine/index.ts';
import { addTile, hostSum, logSumExpOfTiles, type RowRange, rowsOf, tilesOf } from './tiles.ts';

/**
 * A query told apart by the key that belongs to it (He et al. 2020, equation 1, after InfoNCE of van den Oord et al. 2018), summed over R queries:
 *
 *   Σ_i −log( exp(q_i·k_i/τ) / [exp(q_i·k_i/τ) + Σ_j exp(q_i·o_j/τ)] )
 *
 * No gradient flows into a key, so that of a query is all there is, and nothing has to be exchanged for it. With s = q·k/τ and lse_i the
 * logarithm of the bracket:
 *
 *   ∂/∂q_i = 1/τ [ Σ_j exp(s_ij − lse_i)·o_j + (exp(s_ii − lse_i) − 1)·k_i ]
 *
 * With d_i the log-sum-exp of the others alone, minus s_ii: a query's loss is log(1 + e^d), and the last bracket −1/(1 + e^−d). So written, no
 * digit is lost where the loss is small.
 *
 * Shapes: R queries of a lane, K other keys, D width, C columns of a tile.
 */
export interface KeyContrast {
  /** Unit length, as are all keys. */
  readonly q_RD: Tensor2D;
  /** The key of each query. */
  readonly key_RD: Tensor2D;
  /** What the queries are told apart from. */
  readonly others_KD: Tensor2D;
  /** Where the queries' own keys lie among the others, if they do: there a query is not compared. */
  readonly ownRow: number | undefined;
}

export interface KeyGradients {
  /** Of the summed loss. The caller disposes it. */
  readonly dq_RD: Tensor2D;
  readonly lossSum: number;
  /** Σ_i q_i·k_i */
  readonly positiveSimilaritySum: number;
  /** Queries that are nearer to their key than to any other. */
  readonly firstCount: number;
}

/** exp of it is exactly 0. */
const OWN_LOGIT = -1e9;

export function keyGradients(engine: Engine, contrast: KeyContrast, temperature: number): KeyGradients {
  const { q_RD, key_RD, others_KD } = contrast;
  const sums = { loss: 0, positive: 0, first: 0 };
  const dq_RD = tf.tidy(() => {
    const scaled_RD = tf.div(q_RD, temperature) as Tensor2D;
    const logits = (tile: RowRange) => otherLogits(contrast, scaled_RD, tile);
    const positive_R = tf.sum(tf.mul(scaled_RD, key_RD), 1) as Tensor1D;
    const othersLse_R = logSumExpOfTiles(others_KD.shape[0], (tile) => tf.tidy(() => logits(tile)));
    const behind_R = tf.sub(othersLse_R, positive_R);
    const loss_R = tf.softplus(behind_R) as Tensor1D;
    const lse_R = tf.add(positive_R, loss_R);
    let sum_RD: Tensor2D | undefined;
    let nearest_R: Tensor1D | undefined;
    for (const tile of tilesOf(others_KD.shape[0])) {
      const [tileSum_RD, tileNearest_R] = tf.tidy(() => {
        const logits_RC = logits(tile);
        const weights_RC = tf.exp(tf.sub(logits_RC, tf.expandDims(lse_R, 1))) as Tensor2D;
        return [tf.matMul(weights_RC, rowsOf(others_KD, tile)), tf.max(logits_RC, 1)];
      }) as [Tensor2D, Tensor1D];
      sum_RD = addTile(sum_RD, tileSum_RD);
      nearest_R = nearest_R === undefined ? tileNearest_R : (tf.maximum(nearest_R, tileNearest_R) as Tensor1D);
    }
    sums.positive = hostSum(engine, positive_R);
    sums.loss = hostSum(engine, loss_R);
    sums.first = hostSum(engine, tf.step(tf.sub(positive_R, nearest_R!)) as Tensor1D);
    const pull_R = tf.neg(tf.sigmoid(behind_R));
    return tf.div(tf.add(sum_RD!, tf.mul(tf.expandDims(pull_R, 1), key_RD)), temperature) as Tensor2D;
  });
  return {
    dq_RD,
    lossSum: sums.loss,
    positiveSimilaritySum: sums.positive * temperature,
    firstCount: sums.first,
  };
}

/** Similarities with other keys, [R, C]. */
function otherLogits({ others_KD, ownRow }: KeyContrast, scaled_RD: Tensor2D, tile: RowRange): Tensor2D {
  const logits_RC = tf.matMul(scaled_RD, rowsOf(others_KD, tile), false, true) as Tensor2D;
  const rows = scaled_RD.shape[0];
  if (ownRow === undefined || ownRow + rows <= tile.begin || ownRow >= tile.begin + tile.count) return logits_RC;
  const numbers = (begin: number, count: number) =>
    tf.tensor1d(
      Int32Array.from({ length: count }, (_, i) => begin + i),
      'int32',
    );
  const own_R1 = tf.expandDims(numbers(ownRow, rows), 1);
  const isOwn_RC = tf.equal(own_R1, tf.expandDims(numbers(tile.begin, tile.count), 0));
  return tf.where(isOwn_RC, tf.fill([rows, tile.count], OWN_LOGIT), logits_RC) as Tensor2D;
}
