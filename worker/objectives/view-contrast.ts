import { type Engine, type Tensor1D, type Tensor2D, tf } from '../../engine/index.ts';
import { addTile, hostSum, logSumExpOfTiles, type RowRange, rowsOf, tilesOf } from './tiles.ts';

/**
 * Contrast among the views of the global batch (Khosla et al. 2020, equation 2, L_out):
 *
 *   Σ_i −1/|P(i)| Σ_{p ∈ P(i)} log( exp(z_i·z_p/τ) / Σ_{a ≠ i} exp(z_i·z_a/τ) ),  P(i): the other views of i's class
 *
 * With s_ij = z_i·z_j/τ and lse_i over a ≠ i this is Σ_i [lse_i − mean_{p ∈ P(i)} s_ip], and because |P(i)| is the same for all of a
 * class the whole gradient of one row needs only the log-sum-exps of the others:
 *
 *   ∂/∂z_i = 1/τ Σ_{j ≠ i} [exp(s_ij − lse_i) + exp(s_ij − lse_j) − 2·[j ∈ P(i)]/|P(i)|]·z_j
 *
 * Shapes: K views of all lanes, R views of one lane, D width, C columns of a tile.
 */
export interface ViewBatch {
  /** Unit-length projections of all views. */
  readonly z_KD: Tensor2D;
  /** Which views belong together, int32. */
  readonly class_K: Tensor1D;
  /** Row numbers 0 … K−1, int32: a view is not compared with itself. */
  readonly index_K: Tensor1D;
  /** |P(i)| of every view, float32. */
  readonly positives_K: Tensor1D;
}

/** A view's similarity to itself, as in SimCLR's `objective.py`: exp of it is exactly 0. */
const SELF_LOGIT = -1e9;

/** Uploads what `viewLogSumExps` and `viewGradients` read. The caller disposes all but `z_KD`. */
export function viewBatch(z_KD: Tensor2D, classes: Int32Array): ViewBatch {
  const sizes = new Map<number, number>();
  for (const one of classes) sizes.set(one, (sizes.get(one) ?? 0) + 1);
  return {
    z_KD,
    class_K: tf.tensor1d(classes, 'int32'),
    index_K: tf.tensor1d(Int32Array.from(classes.keys()), 'int32'),
    positives_K: tf.tensor1d(Float32Array.from(classes, (one) => sizes.get(one)! - 1)),
  };
}

/** [i and j are equal] as a matrix [R, C]. */
function equalPairs(x_K: Tensor1D, rows: RowRange, tile: RowRange): Tensor2D {
  const x_R = tf.slice(x_K, rows.begin, rows.count);
  const x_C = tf.slice(x_K, tile.begin, tile.count);
  return tf.equal(tf.expandDims(x_R, 1), tf.expandDims(x_C, 0)) as Tensor2D;
}

function logitsOf({ z_KD, index_K }: ViewBatch, rows: RowRange, tile: RowRange, temperature: number): Tensor2D {
  const scaled_RD = tf.div(rowsOf(z_KD, rows), temperature) as Tensor2D;
  const logits_RC = tf.matMul(scaled_RD, rowsOf(z_KD, tile), false, true) as Tensor2D;
  const self_RC = tf.fill([rows.count, tile.count], SELF_LOGIT);
  return tf.where(equalPairs(index_K, rows, tile), self_RC, logits_RC) as Tensor2D;
}

/** First half: log-sum-exp over all other views, for a lane's own: [R]. These are what the workers exchange. */
export function viewLogSumExps(batch: ViewBatch, rows: RowRange, temperature: number): Tensor1D {
  return tf.tidy(() =>
    logSumExpOfTiles(batch.z_KD.shape[0], (tile) => tf.tidy(() => logitsOf(batch, rows, tile, temperature))),
  );
}

export interface ViewGradients {
  /** Of the summed loss. The caller disposes it. */
  readonly dz_RD: Tensor2D;
  readonly lossSum: number;
  /** Σ_i mean_{p ∈ P(i)} z_i·z_p */
  readonly positiveSimilaritySum: number;
}

/**
 * Second half: the exact gradient for a lane's own views.
 * @param lse_K log-sum-exps of all views; undefined leaves the denominators out of the loss, so that nothing pushes views apart
 */
export function viewGradients(
  engine: Engine,
  batch: ViewBatch,
  lse_K: Tensor1D | undefined,
  rows: RowRange,
  temperature: number,
): ViewGradients {
  const { z_KD, class_K, positives_K } = batch;
  let lseSum = 0;
  let positiveSum = 0;
  const dz_RD = tf.tidy(() => {
    const lse_R = lse_K && (tf.slice(lse_K, rows.begin, rows.count) as Tensor1D);
    const positives_R1 = tf.expandDims(tf.slice(positives_K, rows.begin, rows.count), 1);
    let sum_RD: Tensor2D | undefined;
    let positive_R: Tensor1D | undefined;
    for (const tile of tilesOf(z_KD.shape[0])) {
      const [tileSum_RD, tilePositive_R] = tf.tidy(() => {
        const logits_RC = logitsOf(batch, rows, tile, temperature);
        const sameClass_RC = tf.cast(equalPairs(class_K, rows, tile), 'float32');
        const other_RC = tf.cast(tf.logicalNot(equalPairs(batch.index_K, rows, tile)), 'float32');
        const positive_RC = tf.div(tf.mul(sameClass_RC, other_RC), positives_R1);
        const pull_RC = tf.mul(positive_RC, -2);
        const weights_RC = lse_K
          ? tf.add(pull_RC, softmaxes(logits_RC, lse_R!, tf.slice(lse_K, tile.begin, tile.count)))
          : pull_RC;
        return [
          tf.matMul(weights_RC as Tensor2D, rowsOf(z_KD, tile)) as Tensor2D,
          tf.sum(tf.mul(positive_RC, logits_RC), 1) as Tensor1D,
        ];
      }) as [Tensor2D, Tensor1D];
      sum_RD = addTile(sum_RD, tileSum_RD);
      positive_R = addTile(positive_R, tilePositive_R);
    }
    lseSum = lse_R ? hostSum(engine, lse_R) : 0;
    positiveSum = hostSum(engine, positive_R!);
    return tf.div(sum_RD!, temperature) as Tensor2D;
  });
  return { dz_RD, lossSum: lseSum - positiveSum, positiveSimilaritySum: positiveSum * temperature };
}

/** exp(s_ij − lse_i) + exp(s_ij − lse_j): a view's softmax over the others, and the others' over it. */
function softmaxes(logits_RC: Tensor2D, lse_R: Tensor1D, lse_C: Tensor1D): Tensor2D {
  const own_RC = tf.exp(tf.sub(logits_RC, tf.expandDims(lse_R, 1)));
  const others_RC = tf.exp(tf.sub(logits_RC, tf.expandDims(lse_C, 0)));
  return tf.add(own_RC, others_RC);
}
