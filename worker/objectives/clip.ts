import { type Engine, type Tensor, type Tensor1D, type Tensor2D, tf } from '../../engine/index.ts';
import type { ClipModel } from '../../models/clip/clip-model.ts';
import type { LanesTogether } from '../../models/vision/lanes-together.ts';
import { embeddingsOf, encodePairs, encodePairsTogether, type GlobalEmbeddings, towerOutputs } from './image-text.ts';
import type { EncoderInput, GlobalBatch, Lane, LaneGradients, Objective } from './objective.ts';
import { OBJECTIVE_INPUTS } from './objective-inputs.ts';
import { addTile, hostSum, kernelsFor, logSumExpOfTiles, type RowRange, rowsOf, tilesOf } from './tiles.ts';

/**
 * CLIP's symmetric cross entropy over the whole global batch (Radford et al. 2021, Figure 3), computed for one lane's rows only,
 * without the N×N matrix and without gradients over the wire (docs/decisions, ARCHITECTURE "Five ideas" 3).
 *
 * Shapes: N rows in the global batch, R rows of this lane, D embedding width, C columns of a tile.
 * With L = s·I·Tᵀ, s = exp(logit scale): loss = Σ_i [(lse_row_i + lse_col_i)/2 − L_ii] / N. All sums here are over rows, *not*
 * yet divided by N: the trainer divides once, after the reduction over lanes.
 */

export interface ClipLaneResult {
  /** Gradients of the summed loss with respect to this lane's embeddings. The caller disposes them. */
  readonly dImage_RD: Tensor2D;
  readonly dText_RD: Tensor2D;
  /** This lane's share of the summed loss. */
  readonly lossSum: number;
  /** This lane's share of d(summed loss)/d(log s): its own image rows, each counted once. */
  readonly dLogitScaleSum: number;
}

/** Log-sum-exp of s·query·keysᵀ over all keys, per query row: [R]. */
function logSumExpRows(query_RD: Tensor2D, keys_ND: Tensor2D, scale: number): tf.Tensor1D {
  const kernels = kernelsFor(query_RD.shape[0]);
  if (kernels) return kernels.logSumExp(query_RD, keys_ND, scale);
  const scaled_RD = tf.mul(query_RD, scale) as Tensor2D;
  return logSumExpOfTiles(keys_ND.shape[0], (tile) => tf.matMul(scaled_RD, rowsOf(keys_ND, tile), false, true));
}

/**
 * First half: this lane's log-sum-exps, written to `out` as [R image rows over all texts | R text rows over all images].
 * The workers exchange these 2N floats; nothing else is needed to write the exact gradient down.
 */
export function clipLogSumExps(
  engine: Engine,
  all: GlobalEmbeddings,
  rows: RowRange,
  scale: number,
  out: Float32Array,
): void {
  tf.tidy(() => {
    const row_R = logSumExpRows(rowsOf(all.image_ND, rows), all.text_ND, scale);
    const column_R = logSumExpRows(rowsOf(all.text_ND, rows), all.image_ND, scale);
    engine.readInto(row_R, out.subarray(0, rows.count));
    engine.readInto(column_R, out.subarray(rows.count, 2 * rows.count));
  });
}

interface Side {
  readonly query_RD: Tensor2D;
  readonly keys_ND: Tensor2D;
  readonly queryLse_R: tf.Tensor1D;
  readonly keyLse_N: tf.Tensor1D;
}

/** Σ_j w_ij·key_j and Σ_j w_ij·L_ij per query row, with w_ij = (softmax over keys + softmax over queries)/2 at (i, j). */
function weightedKeys(
  { query_RD, keys_ND, queryLse_R, keyLse_N }: Side,
  scale: number,
): { sum_RD: Tensor2D; logits_R: tf.Tensor1D } {
  const kernels = kernelsFor(query_RD.shape[0]);
  if (kernels) return kernels.weights(query_RD, keys_ND, scale, queryLse_R, keyLse_N);
  const scaled_RD = tf.mul(query_RD, scale) as Tensor2D;
  let sum_RD: Tensor2D | undefined;
  let logits_R: tf.Tensor1D | undefined;
  for (const tile of tilesOf(keys_ND.shape[0])) {
    const [tileSum_RD, tileLogits_R] = tf.tidy(() => {
      const keys_CD = rowsOf(keys_ND, tile);
      const logits_RC = tf.matMul(scaled_RD, keys_CD, false, true) as Tensor2D;
      const overKeys_RC = tf.exp(tf.sub(logits_RC, tf.expandDims(queryLse_R, 1)));
      const overQueries_RC = tf.exp(tf.sub(logits_RC, tf.expandDims(tf.slice(keyLse_N, tile.begin, tile.count), 0)));
      const weights_RC = tf.mul(tf.add(overKeys_RC, overQueries_RC), 0.5) as Tensor2D;
      return [tf.matMul(weights_RC, keys_CD) as Tensor2D, tf.sum(tf.mul(weights_RC, logits_RC), 1) as tf.Tensor1D];
    }) as [Tensor2D, tf.Tensor1D];
    sum_RD = addTile(sum_RD, tileSum_RD);
    logits_R = addTile(logits_R, tileLogits_R);
  }
  return { sum_RD: sum_RD as Tensor2D, logits_R: logits_R as tf.Tensor1D };
}

/**
 * Second half: the exact gradient of the summed global loss for this lane's embeddings:
 * dI_R = s·(w·T − T_R), dT_R = s·(wᵀ·I − I_R), and d/d(log s) over its own image rows.
 *
 * @param imageLse_N log-sum-exps of all image rows (over texts); textLse_N of all text rows (over images).
 */
export function clipLaneGradients(
  engine: Engine,
  all: GlobalEmbeddings,
  lse: { readonly imageLse_N: tf.Tensor1D; readonly textLse_N: tf.Tensor1D },
  rows: RowRange,
  scale: number,
): ClipLaneResult {
  let lossSum = 0;
  let dLogitScaleSum = 0;
  const [dImage_RD, dText_RD] = tf.tidy(() => {
    const image_RD = rowsOf(all.image_ND, rows);
    const text_RD = rowsOf(all.text_ND, rows);
    const imageLse_R = tf.slice(lse.imageLse_N, rows.begin, rows.count);
    const textLse_R = tf.slice(lse.textLse_N, rows.begin, rows.count);
    const fromTexts = weightedKeys(
      { query_RD: image_RD, keys_ND: all.text_ND, queryLse_R: imageLse_R, keyLse_N: lse.textLse_N },
      scale,
    );
    const fromImages = weightedKeys(
      { query_RD: text_RD, keys_ND: all.image_ND, queryLse_R: textLse_R, keyLse_N: lse.imageLse_N },
      scale,
    );
    const positive_R = tf.mul(tf.sum(tf.mul(image_RD, text_RD), 1), scale) as tf.Tensor1D;
    const positiveSum = hostSum(engine, positive_R);
    lossSum = (hostSum(engine, imageLse_R) + hostSum(engine, textLse_R)) / 2 - positiveSum;
    dLogitScaleSum = hostSum(engine, fromTexts.logits_R) - positiveSum;
    return [
      tf.mul(tf.sub(fromTexts.sum_RD, text_RD), scale) as Tensor2D,
      tf.mul(tf.sub(fromImages.sum_RD, image_RD), scale) as Tensor2D,
    ];
  });
  return { dImage_RD: dImage_RD!, dText_RD: dText_RD!, lossSum, dLogitScaleSum };
}

/** CLIP behind the seam: pictures and captions, one learnt scalar, two log-sum-exps per sample exchanged. */
export class ClipObjective implements Objective {
  readonly inputs = OBJECTIVE_INPUTS.clip;
  readonly outputs: Objective['outputs'];
  readonly exchanged = [
    { name: 'imageLse', perSample: 1, width: 1 },
    { name: 'textLse', perSample: 1, width: 1 },
  ];
  readonly scalars: Objective['scalars'];
  readonly metrics = [];
  readonly #engine: Engine;
  readonly #model: ClipModel;

  /** @param options.logitScaleMax natural log; the scale is held in [0, this] (Radford et al. 2021 §2.5; without it a run ends in NaN) */
  constructor(
    options: { readonly logitScaleMax: number },
    modules: { readonly engine: Engine; readonly model: ClipModel },
  ) {
    this.#engine = modules.engine;
    this.#model = modules.model;
    this.outputs = towerOutputs(modules.model);
    this.scalars = [{ name: 'logit_scale', min: 0, max: options.logitScaleMax }];
  }

  encode(input: EncoderInput): Tensor[] {
    return encodePairs(this.#model, input);
  }

  encodeTogether(inputs: readonly EncoderInput[], together: LanesTogether): Tensor[][] {
    return encodePairsTogether(this.#model, inputs, together);
  }

  exchange(batch: GlobalBatch, { samples }: Lane, [imageLse, textLse]: readonly Float32Array[]): void {
    const both = new Float32Array(2 * samples.count);
    clipLogSumExps(this.#engine, embeddingsOf(batch), samples, this.similarityScale(batch.scalars), both);
    imageLse!.set(both.subarray(0, samples.count));
    textLse!.set(both.subarray(samples.count));
  }

  laneGradients(batch: GlobalBatch, { samples }: Lane, [imageLse_N, textLse_N]: readonly Tensor1D[]): LaneGradients {
    const lse = { imageLse_N: imageLse_N!, textLse_N: textLse_N! };
    const scale = this.similarityScale(batch.scalars);
    const result = clipLaneGradients(this.#engine, embeddingsOf(batch), lse, samples, scale);
    return {
      dOutputs: [result.dImage_RD, result.dText_RD],
      lossSum: result.lossSum,
      dScalars: [result.dLogitScaleSum],
      metricSums: [],
    };
  }

  similarityScale([logScale]: readonly number[]): number {
    return Math.exp(logScale!);
  }
}
