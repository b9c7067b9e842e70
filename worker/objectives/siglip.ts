import { type Engine, type Tensor, type Tensor1D, type Tensor2D, tf } from '../../engine/index.ts';
import type { ClipModel } from '../../models/clip/clip-model.ts';
import type { LanesTogether } from '../../models/vision/lanes-together.ts';
import { embeddingsOf, encodePairs, encodePairsTogether, type GlobalEmbeddings, towerOutputs } from './image-text.ts';
import type { EncoderInput, GlobalBatch, Lane, LaneGradients, Objective } from './objective.ts';
import { OBJECTIVE_INPUTS } from './objective-inputs.ts';
import { addTile, hostSum, kernelsFor, type RowRange, rowsOf, tilesOf } from './tiles.ts';

/**
 * SigLIP's pairwise sigmoid loss (Zhai et al. 2023, equation 1 and algorithm 1) over the whole global batch:
 *
 *   L = −1/N Σ_i Σ_j log σ(z_ij·(t·x_i·y_j + b)),  z_ii = 1, z_ij = −1,  t = exp(t′)
 *
 * Every pair stands for itself, so there is no normaliser to exchange. With l = t·x·y + b, −log σ(−l) = softplus(l) and
 * −log σ(l) = softplus(l) − l, hence ∂L/∂l_ij = σ(l_ij) − δ_ij. Each lane counts the pairs of its own pictures.
 *
 * Shapes: R rows of a lane, N rows of all, D embedding width, C columns of a tile.
 */

/** t′ at the start, natural log (§3.2). */
export const SIGLIP_LOGIT_SCALE_INIT = Math.log(10);

/** Sums over all keys of a lane's rows, as if every pair were a negative one. */
interface NegativeSums {
  /** Σ_j σ(l_ij)·key_j */
  readonly keys_RD: Tensor2D;
  /** Σ_j σ(l_ij) */
  readonly sigmoid_R: Tensor1D;
  /** Σ_j σ(l_ij)·(l_ij − b) */
  readonly scaled_R: Tensor1D;
  /** Σ_j softplus(l_ij) */
  readonly loss_R: Tensor1D;
}

function negativeSums(query_RD: Tensor2D, keys_ND: Tensor2D, scale: number, bias: number): NegativeSums {
  const kernels = kernelsFor(query_RD.shape[0]);
  if (kernels) return kernels.sigmoids(query_RD, keys_ND, scale, bias);
  const scaled_RD = tf.mul(query_RD, scale) as Tensor2D;
  let sums: NegativeSums | undefined;
  for (const tile of tilesOf(keys_ND.shape[0])) {
    const ofTile = tf.tidy((): tf.NamedTensorMap => {
      const keys_CD = rowsOf(keys_ND, tile);
      const similarity_RC = tf.matMul(scaled_RD, keys_CD, false, true) as Tensor2D;
      const logits_RC = tf.add(similarity_RC, bias);
      const sigmoid_RC = tf.sigmoid(logits_RC) as Tensor2D;
      return {
        keys_RD: tf.matMul(sigmoid_RC, keys_CD),
        sigmoid_R: tf.sum(sigmoid_RC, 1),
        scaled_R: tf.sum(tf.mul(sigmoid_RC, similarity_RC), 1),
        loss_R: tf.sum(tf.softplus(logits_RC), 1),
      };
    }) as unknown as NegativeSums;
    sums = {
      keys_RD: addTile(sums?.keys_RD, ofTile.keys_RD),
      sigmoid_R: addTile(sums?.sigmoid_R, ofTile.sigmoid_R),
      scaled_R: addTile(sums?.scaled_R, ofTile.scaled_R),
      loss_R: addTile(sums?.loss_R, ofTile.loss_R),
    };
  }
  return sums!;
}

export interface SiglipLaneResult {
  /** Gradients of the summed loss with respect to this lane's embeddings. The caller disposes them. */
  readonly dImage_RD: Tensor2D;
  readonly dText_RD: Tensor2D;
  /** This lane's pictures' share of the summed loss, and of its gradients for t′ and b. */
  readonly lossSum: number;
  readonly dLogitScaleSum: number;
  readonly dLogitBiasSum: number;
  /** Σ_i x_i·y_i of this lane's pairs. */
  readonly positiveSimilaritySum: number;
}

/** dI_R = t·(σ·T − T_R), dT_R = t·(σᵀ·I − I_R), and t′ and b over the lane's own pictures. @param scale t */
export function siglipLaneGradients(
  engine: Engine,
  { image_ND, text_ND }: GlobalEmbeddings,
  rows: RowRange,
  scale: number,
  bias: number,
): SiglipLaneResult {
  let sums = { loss: 0, scaled: 0, sigmoid: 0, positive: 0 };
  const [dImage_RD, dText_RD] = tf.tidy(() => {
    const image_RD = rowsOf(image_ND, rows);
    const text_RD = rowsOf(text_ND, rows);
    const ofImages = negativeSums(image_RD, text_ND, scale, bias);
    const ofTexts = negativeSums(text_RD, image_ND, scale, bias);
    const sum = (x_R: Tensor1D) => hostSum(engine, x_R);
    const positive = sum(tf.mul(tf.sum(tf.mul(image_RD, text_RD), 1), scale) as Tensor1D);
    sums = { loss: sum(ofImages.loss_R), scaled: sum(ofImages.scaled_R), sigmoid: sum(ofImages.sigmoid_R), positive };
    return [
      tf.mul(tf.sub(ofImages.keys_RD, text_RD), scale) as Tensor2D,
      tf.mul(tf.sub(ofTexts.keys_RD, image_RD), scale) as Tensor2D,
    ];
  });
  return {
    dImage_RD: dImage_RD!,
    dText_RD: dText_RD!,
    lossSum: sums.loss - (sums.positive + rows.count * bias),
    dLogitScaleSum: sums.scaled - sums.positive,
    dLogitBiasSum: sums.sigmoid - rows.count,
    positiveSimilaritySum: sums.positive / scale,
  };
}

/** SigLIP behind the seam: pictures and captions, a learnt scale and bias, nothing exchanged. */
export class SiglipObjective implements Objective {
  readonly inputs = OBJECTIVE_INPUTS.siglip;
  readonly outputs: Objective['outputs'];
  readonly exchanged = [];
  readonly scalars: Objective['scalars'];
  /** Mean similarity x·y of a picture with its own caption. */
  readonly metrics = ['positive_similarity'];
  readonly #engine: Engine;
  readonly #model: ClipModel;

  /** @param options.logitScaleMax natural log; open_clip holds the scale in [0, this] for SigLIP as for CLIP */
  constructor(
    options: { readonly logitScaleMax: number },
    modules: { readonly engine: Engine; readonly model: ClipModel },
  ) {
    this.#engine = modules.engine;
    this.#model = modules.model;
    this.outputs = towerOutputs(modules.model);
    this.scalars = [
      { name: 'logit_scale', min: 0, max: options.logitScaleMax },
      { name: 'logit_bias', min: Number.NEGATIVE_INFINITY, max: Number.POSITIVE_INFINITY },
    ];
  }

  encode(input: EncoderInput): Tensor[] {
    return encodePairs(this.#model, input);
  }

  encodeTogether(inputs: readonly EncoderInput[], together: LanesTogether): Tensor[][] {
    return encodePairsTogether(this.#model, inputs, together);
  }

  exchange(): void {}

  laneGradients(batch: GlobalBatch, { samples }: Lane): LaneGradients {
    const scale = this.similarityScale(batch.scalars);
    const result = siglipLaneGradients(this.#engine, embeddingsOf(batch), samples, scale, batch.scalars[1]!);
    return {
      dOutputs: [result.dImage_RD, result.dText_RD],
      lossSum: result.lossSum,
      dScalars: [result.dLogitScaleSum, result.dLogitBiasSum],
      metricSums: [result.positiveSimilaritySum],
    };
  }

  similarityScale([logScale]: readonly number[]): number {
    return Math.exp(logScale!);
  }
}
