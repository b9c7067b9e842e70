import { onTorch } from '../backend/active.ts';
import { fusedSimilarity } from '../fused/similarity.ts';
import type { Tensor1D, Tensor2D } from '../tf.ts';

/**
 * Sums over all pairs of R query rows and N keys of width D, with l_ij = scale·query_i·key_j, without more than a tile of the l_ij in memory.
 * They are what contrastive losses and their gradients are made of; they have no gradient of their own. float32.
 */
export interface SimilarityKernels {
  /** log Σ_j exp(l_ij) */
  logSumExp(query_RD: Tensor2D, keys_ND: Tensor2D, scale: number): Tensor1D;
  /** Σ_j w_ij·key_j and Σ_j w_ij·l_ij, w_ij = (exp(l_ij − queryLse_i) + exp(l_ij − keyLse_j))/2 */
  weights(
    query_RD: Tensor2D,
    keys_ND: Tensor2D,
    scale: number,
    queryLse_R: Tensor1D,
    keyLse_N: Tensor1D,
  ): { readonly sum_RD: Tensor2D; readonly logits_R: Tensor1D };
  /** With σ_ij = σ(l_ij + bias): Σ_j σ_ij·key_j, Σ_j σ_ij, Σ_j σ_ij·l_ij and Σ_j log(1 + exp(l_ij + bias)) */
  sigmoids(
    query_RD: Tensor2D,
    keys_ND: Tensor2D,
    scale: number,
    bias: number,
  ): {
    readonly keys_RD: Tensor2D;
    readonly sigmoid_R: Tensor1D;
    readonly scaled_R: Tensor1D;
    readonly loss_R: Tensor1D;
  };
}

/** Of the torch engine; undefined on the others, whose callers compose them of stock ops. */
export function similarityKernels(): SimilarityKernels | undefined {
  return onTorch() ? fusedSimilarity : undefined;
}
