import { assert } from '../../common/errors.ts';
import { torchBackend } from '../backend/torch-backend.ts';
import type { SimilarityKernels } from '../ops/similarity.ts';
import type { Tensor, Tensor1D, Tensor2D } from '../tf.ts';
import { isRecording } from '../tfjs-internals.ts';

/** See ops/similarity.ts. */
export const fusedSimilarity: SimilarityKernels = {
  logSumExp(query_RD, keys_ND, scale) {
    const { backend, addon, rows } = prepared(query_RD);
    const lse = addon.similarityLogSumExp(backend.handleOf(query_RD), backend.handleOf(keys_ND), scale);
    return backend.tensor(lse, [rows]) as Tensor1D;
  },
  weights(query_RD, keys_ND, scale, queryLse_R, keyLse_N) {
    const { backend, addon, rows } = prepared(query_RD);
    const [query, keys, queryLse, keyLse] = [query_RD, keys_ND, queryLse_R, keyLse_N].map((x: Tensor) =>
      backend.handleOf(x),
    );
    const [sum, logits] = addon.similarityWeights(query!, keys!, scale, queryLse!, keyLse!);
    return {
      sum_RD: backend.tensor(sum, query_RD.shape) as Tensor2D,
      logits_R: backend.tensor(logits, [rows]) as Tensor1D,
    };
  },
  sigmoids(query_RD, keys_ND, scale, bias) {
    const { backend, addon, rows } = prepared(query_RD);
    const handles = addon.similaritySigmoids(backend.handleOf(query_RD), backend.handleOf(keys_ND), scale, bias);
    const [sigmoid_R, scaled_R, loss_R] = handles.slice(1).map((one) => backend.tensor(one, [rows]) as Tensor1D);
    return {
      keys_RD: backend.tensor(handles[0], query_RD.shape) as Tensor2D,
      sigmoid_R: sigmoid_R!,
      scaled_R: scaled_R!,
      loss_R: loss_R!,
    };
  },
};

function prepared(query_RD: Tensor2D) {
  assert(!isRecording(), 'sums over similarities are gradients already and are not recorded');
  const backend = torchBackend();
  return { backend, addon: backend.addon, rows: query_RD.shape[0] };
}
