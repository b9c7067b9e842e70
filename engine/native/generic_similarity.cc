// Sums over pairs in tiles, for any device; see similarity.cc.
#include "context.h"

namespace covey::generic {
napi_value similarityLogSumExp(Call&);
napi_value similarityWeights(Call&);
napi_value similaritySigmoids(Call&);

namespace {
/// Keys at once. Part of the numerics.
constexpr int64_t tileColumns = 4096;

/// Calls visit(similarities_rc, keys_cD, column) for each tile, in order.
template <class Visit>
void eachTile(Call& call, Visit&& visit) {
  const Tensor query_RD = call.tensor(0) * call.number(2);
  const Tensor& keys_ND = call.tensor(1);
  for (int64_t column = 0; column < keys_ND.size(0); column += tileColumns) {
    const Tensor keys_cD = keys_ND.narrow(0, column, std::min(tileColumns, keys_ND.size(0) - column));
    visit(at::mm(query_RD, keys_cD.t()), keys_cD, column);
  }
}
}  // namespace

napi_value similarityLogSumExp(Call& call) {
  Tensor merged_R;
  eachTile(call, [&](const Tensor& logits_rc, const Tensor&, int64_t) {
    const Tensor tile_R = logits_rc.logsumexp(1);
    merged_R = merged_R.defined() ? at::logaddexp(merged_R, tile_R) : tile_R;
  });
  return call.wrap(merged_R);
}

napi_value similarityWeights(Call& call) {
  const Tensor queryLse_R1 = call.tensor(3).unsqueeze(1);
  const Tensor& keyLse_N = call.tensor(4);
  const Tensor sum_RD = at::zeros_like(call.tensor(0));
  const Tensor logits_R = at::zeros_like(call.tensor(3));
  eachTile(call, [&](const Tensor& logits_rc, const Tensor& keys_cD, int64_t column) {
    const Tensor weights_rc = (logits_rc - queryLse_R1).exp_();
    weights_rc.add_((logits_rc - keyLse_N.narrow(0, column, keys_cD.size(0))).exp_()).mul_(0.5);
    sum_RD.addmm_(weights_rc, keys_cD);
    logits_R.add_(logits_rc.mul_(weights_rc).sum(1));
  });
  return call.wrap({sum_RD, logits_R});
}

napi_value similaritySigmoids(Call& call) {
  const Tensor& query_RD = call.tensor(0);
  const Tensor sum_RD = at::zeros_like(query_RD);
  const auto zeros = [&] { return at::zeros({query_RD.size(0)}, query_RD.options()); };
  const Tensor sigmoid_R = zeros(), scaled_R = zeros(), loss_R = zeros();
  eachTile(call, [&](const Tensor& similarities_rc, const Tensor& keys_cD, int64_t) {
    const Tensor logits_rc = similarities_rc + call.number(3);
    const Tensor sigmoids_rc = logits_rc.sigmoid();
    // log(1 + e^l) = max(l, 0) − log σ(|l|)
    loss_R.add_(logits_rc.clamp_min(0).sub_(at::log_sigmoid(logits_rc.abs())).sum(1));
    sum_RD.addmm_(sigmoids_rc, keys_cD);
    sigmoid_R.add_(sigmoids_rc.sum(1));
    scaled_R.add_(similarities_rc.mul_(sigmoids_rc).sum(1));
  });
  return call.wrap({sum_RD, sigmoid_R, scaled_R, loss_R});
}
}  // namespace covey::generic
