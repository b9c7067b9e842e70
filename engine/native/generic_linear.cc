// Products, activations and normalisations for any device; see generic.h.
#include "generic.h"

namespace covey::generic {

/// σ(1.702·x), the gate of x·σ(1.702·x).
static Tensor gateOf(const Tensor& x) { return at::sigmoid(x * 1.702); }

/// Value, and slope where it is asked for (else undefined).
static std::vector<Tensor> activated(const Tensor& x, bool quick, bool withSlope) {
  if (!quick) return {at::gelu(x), withSlope ? at::gelu_backward(at::ones_like(x), x) : Tensor()};
  const Tensor gate = gateOf(x);
  return {x * gate, withSlope ? gate + x * 1.702 * gate * (1 - gate) : Tensor()};
}

napi_value gelu(Call& call) { return call.wrap(activated(call.tensor(0).contiguous(), call.boolean(1), call.boolean(2))); }

napi_value geluGradient(Call& call) {
  const Tensor& slope = call.tensor(1);
  return call.wrap(likeIn(call.tensor(0), slope) * slope);
}

static Tensor layer(Call& call) {
  const auto bias = call.isNull(2) ? Optional<Tensor>() : Optional<Tensor>(call.tensor(2));
  return at::linear(call.tensor(0), call.tensor(1), bias);
}

napi_value linear(Call& call) { return call.wrap(layer(call)); }
napi_value linearGelu(Call& call) { return call.wrap(activated(layer(call), call.boolean(3), call.boolean(4))); }

static Tensor inputGradient(Call& call) {
  const Tensor& weight = call.tensor(1);
  const Tensor dy = likeIn(call.tensor(0), weight);
  auto shape = dy.sizes().vec();
  shape.back() = weight.size(1);
  return at::mm(asRows(dy), weight).view(shape);
}

napi_value linearInputGradient(Call& call) { return call.wrap(inputGradient(call)); }
napi_value geluLinearInputGradient(Call& call) { return call.wrap(inputGradient(call) * call.tensor(2)); }

napi_value linearWeightGradient(Call& call) {
  const Tensor x = call.tensor(1).contiguous();
  const Tensor dy = likeIn(call.tensor(0), x);
  return call.wrap(widened(at::mm(asRows(dy).t(), asRows(x))));
}

napi_value sumRows(Call& call) {
  const Tensor& dy = call.tensor(0);
  return call.wrap(at::sum(asRows(dy), {0}, false, wideType(dy)));
}

// bf16 rows are normalised in fp32, as PyTorch's autocast does: CUDA's kernel wants weights of the rows' type, and their gradients must not be
// rounded to bf16.
napi_value layerNorm(Call& call) {
  const Tensor x = call.tensor(0).contiguous();
  const Tensor sum = call.isNull(1) ? Tensor() : x + likeIn(call.tensor(1), x);
  const Tensor& weight = call.tensor(2);
  const Tensor rows = widened(sum.defined() ? sum : x);
  const auto [y, mean, reciprocalStd] = at::native_layer_norm(rows, {x.size(-1)}, weight, call.tensor(3), call.number(4));
  const Tensor statistics = at::stack({mean.reshape({-1}), reciprocalStd.reshape({-1})}, 1);
  return call.wrap({sum, y.to(x.scalar_type()), statistics});
}

napi_value layerNormGradient(Call& call) {
  const Tensor x = call.tensor(2).contiguous();
  const Tensor rows = widened(x);
  const Tensor dy = likeIn(call.tensor(0), rows);
  const Tensor& statistics = call.tensor(3);
  const Tensor& weight = call.tensor(4);
  auto outer = x.sizes().vec();
  outer.back() = 1;
  // The kernel walks them as plain arrays, whatever their strides.
  const Tensor mean = statistics.select(1, 0).contiguous().view(outer), reciprocalStd = statistics.select(1, 1).contiguous().view(outer);
  // The bias's values do not enter; its presence asks for its gradient.
  auto [dx, dweight, dbias] =
      at::native_layer_norm_backward(dy, rows, {x.size(-1)}, mean, reciprocalStd, weight, weight, {true, true, true});
  if (!call.isNull(1)) dx = dx + call.tensor(1);
  return call.wrap({dx.to(x.scalar_type()), dweight, dbias});
}

napi_value l2Normalize(Call& call) {
  const Tensor x = widened(call.tensor(0)).contiguous();
  const Tensor norms = at::linalg_vector_norm(x, 2, at::IntArrayRef{-1}, true).clamp_min(call.number(1));
  return call.wrap({x / norms, norms.reshape({-1})});
}

napi_value l2NormalizeGradient(Call& call) {
  const Tensor& y = call.tensor(1);
  const Tensor dy = likeIn(call.tensor(0), y);
  auto outer = y.sizes().vec();
  outer.back() = 1;
  const Tensor projection = at::sum(dy * y, {-1}, true);
  return call.wrap(((dy - y * projection) / call.tensor(2).reshape(outer)).to(typeAt(call, 3)));
}

}  // namespace covey::generic
