// Self-attention through libtorch's fused kernels where it has them for the device and type, else composed; see generic.h.
// Forward returns [out, logSumExp, ...kept]: `kept` goes back to attentionGradient as it is. It is empty for the composition, which needs the
// log-sum-exps only.
#include <cmath>
#include <limits>

#include "generic.h"

#if COVEY_TORCH_FOR_DEVICES
#include <ATen/SDPBackend.h>
#endif

namespace covey::generic {
namespace {

struct Heads {
  Tensor q, k, v;  // [B, H, T, D/H], views of the packed tensor
  int64_t count;
  bool causal;
  double scale() const { return 1 / std::sqrt(static_cast<double>(q.size(-1))); }
};

Heads headsOf(const Tensor& qkv_BT3D, int64_t heads, bool causal) {
  TORCH_CHECK(qkv_BT3D.dim() == 3 && qkv_BT3D.size(2) % (3 * heads) == 0, "attention: expected [B, T, 3·D] with D a multiple of ", heads,
              " heads, got ", qkv_BT3D.sizes());
  const Tensor parts = qkv_BT3D.view({qkv_BT3D.size(0), qkv_BT3D.size(1), 3, heads, -1}).permute({2, 0, 3, 1, 4});
  return {parts[0], parts[1], parts[2], heads, causal};
}

/// [B, H, T, D/H] -> [B, T, D]
Tensor packed(const Tensor& perHead) {
  const Tensor rows = perHead.transpose(1, 2);
  return rows.reshape({rows.size(0), rows.size(1), -1});
}
Tensor packed(const Tensor& dq, const Tensor& dk, const Tensor& dv) { return at::cat({packed(dq), packed(dk), packed(dv)}, -1); }
Tensor perHead(const Tensor& packed_BTD, int64_t heads) {
  return packed_BTD.view({packed_BTD.size(0), packed_BTD.size(1), heads, -1}).transpose(1, 2);
}

/// −∞ above the diagonal.
Tensor masked(const Tensor& scores, bool causal) {
  if (!causal) return scores;
  const int64_t tokens = scores.size(-1);
  return scores.masked_fill(at::ones({tokens, tokens}, scores.options().dtype(at::kBool)).triu(1), -std::numeric_limits<double>::infinity());
}
Tensor scoresOf(const Heads& h) { return masked(at::matmul(widened(h.q) * h.scale(), widened(h.k).transpose(-2, -1)), h.causal); }

struct Result {
  Tensor out, logSumExp;
  std::vector<Tensor> kept;
};

Result composed(const Heads& h) {
  const Tensor scores = scoresOf(h);
  const Tensor logSumExp = at::logsumexp(scores, {-1}, true);
  const Tensor out = at::matmul(at::exp(scores - logSumExp), widened(h.v));
  return {packed(out).to(h.q.scalar_type()), logSumExp.reshape({-1, h.q.size(2)}), {}};
}

Tensor composedGradient(const Heads& h, const Tensor& dOut, const Tensor& logSumExp) {
  const Tensor upstream = perHead(widened(dOut), h.count), q = widened(h.q), k = widened(h.k), v = widened(h.v);
  const Tensor p = at::exp(scoresOf(h) - logSumExp.view({q.size(0), q.size(1), q.size(2), 1}));
  const Tensor dP = at::matmul(upstream, v.transpose(-2, -1));
  const Tensor dScores = p * (dP - at::sum(p * dP, {-1}, true)) * h.scale();
  return packed(at::matmul(dScores, k), at::matmul(dScores.transpose(-2, -1), q), at::matmul(p.transpose(-2, -1), upstream));
}

#if COVEY_TORCH_FOR_DEVICES

enum class Method { composed, flash, efficient };

/// What libtorch would take. cuDNN's attention is not among our methods: its place in the order is after the others.
Method methodFor(const Heads& h) {
  switch (static_cast<at::SDPBackend>(at::_fused_sdp_choice(h.q, h.k, h.v, Optional<Tensor>(), 0.0, h.causal))) {
    case at::SDPBackend::flash_attention: return Method::flash;
    case at::SDPBackend::efficient_attention: return Method::efficient;
    default: return Method::composed;
  }
}

Result flash(const Heads& h) {
  if (h.q.device().is_cpu()) {
    const auto [out, logSumExp] = at::_scaled_dot_product_flash_attention_for_cpu(h.q, h.k, h.v, 0.0, h.causal);
    const Tensor result = packed(out);
    return {result, logSumExp, {result}};
  }
  const auto [out, logSumExp, startsQ, startsK, maxQ, maxK, seed, offset, debug] =
      at::_scaled_dot_product_flash_attention(h.q, h.k, h.v, 0.0, h.causal, false);
  const Tensor result = packed(out);
  return {result, logSumExp, {result, startsQ, startsK, seed, offset}};
}

Tensor flashGradient(const Heads& h, const Tensor& dOut, const Tensor& logSumExp, const std::vector<Tensor>& kept) {
  const Tensor upstream = perHead(dOut, h.count), out = perHead(kept.at(0), h.count);
  if (h.q.device().is_cpu()) {
    const auto [dq, dk, dv] =
        at::_scaled_dot_product_flash_attention_for_cpu_backward(upstream, h.q, h.k, h.v, out, logSumExp, 0.0, h.causal);
    return packed(dq, dk, dv);
  }
  const int64_t tokens = h.q.size(2);
  const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_backward(upstream, h.q, h.k, h.v, out, logSumExp, kept.at(1), kept.at(2), tokens,
                                                                             tokens, 0.0, h.causal, kept.at(3), kept.at(4));
  return packed(dq, dk, dv);
}

Result efficient(const Heads& h) {
  const auto [out, logSumExp, seed, offset] =
      at::_scaled_dot_product_efficient_attention(h.q, h.k, h.v, Optional<Tensor>(), true, 0.0, h.causal);
  const Tensor result = packed(out);
  return {result, logSumExp, {result, seed, offset}};
}

Tensor efficientGradient(const Heads& h, const Tensor& dOut, const Tensor& logSumExp, const std::vector<Tensor>& kept) {
  const auto [dq, dk, dv, dBias] = at::_scaled_dot_product_efficient_attention_backward(
      perHead(dOut, h.count), h.q, h.k, h.v, Tensor(), perHead(kept.at(0), h.count), logSumExp, kept.at(1), kept.at(2), 0.0,
      {true, true, true, false}, h.causal);
  return packed(dq, dk, dv);
}

#endif

}  // namespace

napi_value attention(Call& call) {
  const Tensor qkv = call.tensor(0).contiguous();
  const Heads h = headsOf(qkv, call.integer(1), call.boolean(2));
#if COVEY_TORCH_FOR_DEVICES
  const Method method = methodFor(h);
  const Result result = method == Method::flash ? flash(h) : method == Method::efficient ? efficient(h) : composed(h);
#else
  const Result result = composed(h);
#endif
  std::vector<Tensor> all{result.out, result.logSumExp};
  all.insert(all.end(), result.kept.begin(), result.kept.end());
  return call.wrap(all);
}

// attentionGradient(dOut, qkv, logSumExp, heads, causal, kept) -> dqkv
napi_value attentionGradient(Call& call) {
  const Tensor qkv = call.tensor(1).contiguous();
  const Tensor dOut = likeIn(call.tensor(0), qkv);
  const Tensor& logSumExp = call.tensor(2);
  const Heads h = headsOf(qkv, call.integer(3), call.boolean(4));
#if COVEY_TORCH_FOR_DEVICES
  const std::vector<Tensor> kept = call.optionalTensors(5);
  if (!kept.empty()) {
    const bool isFlash = kept.size() != 3;  // [out, seed, offset] is the efficient kernel's
    return call.wrap(isFlash ? flashGradient(h, dOut, logSumExp, kept) : efficientGradient(h, dOut, logSumExp, kept));
  }
#endif
  return call.wrap(composedGradient(h, dOut, logSumExp).to(qkv.scalar_type()));
}

}  // namespace covey::generic
