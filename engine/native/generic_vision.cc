// Convolution's weights, batch normalisation and pooling for any device, channels-last; see generic.h.
#include "conv.h"
#include "generic.h"

namespace covey::generic {

napi_value convWeight(Call& call) {
  const Tensor& weight = call.tensor(0);
  TORCH_CHECK(weight.dim() == 4, "conv2d: the weight must be [out, in, height, width], got ", weight.sizes());
  // fp64 stays: callers know fp32 and bf16 only.
  const auto type = weight.scalar_type() == at::kDouble ? at::kDouble : typeAt(call, 1);
  return call.wrap(weight.to(type).contiguous(at::MemoryFormat::ChannelsLast));
}

napi_value conv2dGradient(Call& call) {
  const auto [dx, dweight] = convolutionGradients(call);
  return call.wrap({dx, dweight.defined() ? widened(dweight).contiguous() : Tensor()});
}

// Statistics of bf16 rows are taken in fp32: libtorch's kernel mixes the two types on a GPU only.
napi_value batchNorm(Call& call) {
  const Tensor x = call.tensor(0).contiguous();
  const Tensor rows = asRows(widened(x));
  const Tensor &weight = call.tensor(2), &bias = call.tensor(3), &runningMean = call.tensor(4), &runningVariance = call.tensor(5);
  const double momentum = call.number(7), eps = call.number(8);
  Tensor y, pair;
  if (call.boolean(6)) {
    // The running statistics stay fp32 where rows are fp64; else these are they.
    const Tensor mean = runningMean.to(rows.scalar_type()), variance = runningVariance.to(rows.scalar_type());
    const auto [normalised, batchMean, reciprocalStd] = at::native_batch_norm(rows, weight, bias, mean, variance, true, momentum, eps);
    if (!mean.is_same(runningMean)) runningMean.copy_(mean), runningVariance.copy_(variance);
    y = normalised;
    pair = at::stack({batchMean, reciprocalStd});
  } else {
    pair = at::stack({runningMean, at::rsqrt(runningVariance + eps)});
    y = (rows - pair[0]) * (pair[1] * weight) + bias;
  }
  if (!call.isNull(1)) y = y + asRows(call.tensor(1));
  if (call.boolean(9)) y = at::relu(y);
  return call.wrap({y.to(x.scalar_type()).view(x.sizes()), pair});
}

/// dx = scale·(g − mean(g) − x̂·mean(g·x̂)), with fixed statistics scale·g; g: dy where ReLU let the value through.
napi_value batchNormGradient(Call& call) {
  const Tensor x = call.tensor(1).contiguous();
  const Tensor rows = asRows(widened(x)), statistics = call.tensor(3);
  const Tensor &weight = call.tensor(4), &bias = call.tensor(5);
  const bool hasResidual = !call.isNull(2);
  const Tensor normalised = (rows - statistics[0]) * statistics[1];
  Tensor g = asRows(likeIn(call.tensor(0), rows));
  if (call.boolean(7)) {
    const Tensor passed = hasResidual ? asRows(call.tensor(2)) : normalised * weight + bias;
    g = at::where(passed > 0, g, at::zeros({}, g.options()));
  }
  const Tensor dbias = at::sum(g, {0}), dweight = at::sum(g * normalised, {0});
  const double count = static_cast<double>(rows.size(0));
  const Tensor centred = call.boolean(6) ? g - dbias / count - normalised * (dweight / count) : g;
  const Tensor dx = (centred * (weight * statistics[1])).to(x.scalar_type()).view(x.sizes());
  return call.wrap({dx, dweight, dbias, hasResidual ? g.to(x.scalar_type()).view(x.sizes()) : Tensor()});
}

// The winner is libtorch's: the flat place within its plane, int64 [B, C, H, W] in channels-last order.
napi_value maxPool2d(Call& call) {
  const Tensor x = call.tensor(0).contiguous();
  TORCH_CHECK(x.dim() == 4, "maxPool2d: expected [batch, height, width, channels], got ", x.sizes());
  const int64_t size = call.integer(1), stride = call.integer(2), padding = call.integer(3);
  const auto [y, winner] = at::max_pool2d_with_indices(channelsFirst(x), {size, size}, {stride, stride}, {padding, padding});
  return call.wrap({channelsLast(y), winner});
}

/// In deterministic mode by sums in a fixed order: libtorch's own kernel adds in any order on a GPU.
static Tensor orderedPoolGradient(const Tensor& dy_BCHW, const Tensor& winner, const std::vector<int64_t>& shape_BHWC) {
  const int64_t places = shape_BHWC[1] * shape_BHWC[2], planes = shape_BHWC[0] * shape_BHWC[3];
  const Tensor first = at::arange(planes, winner.options()).view({-1, 1}) * places;
  const Tensor flat = (winner.reshape({planes, -1}) + first).reshape({-1});
  const Tensor dx = at::zeros({planes * places}, dy_BCHW.options()).index_add_(0, flat, dy_BCHW.reshape({-1}));
  return dx.view({shape_BHWC[0], shape_BHWC[3], shape_BHWC[1], shape_BHWC[2]});
}

napi_value maxPool2dGradient(Call& call) {
  const Tensor& winner = call.tensor(1);
  const auto shape = call.integers(2);
  const int64_t size = call.integer(3), stride = call.integer(4), padding = call.integer(5);
  const auto type = typeAt(call, 6);
  const Tensor dy = channelsFirst(widened(call.tensor(0)).contiguous());
  if (at::globalContext().deterministicAlgorithms()) return call.wrap(channelsLast(orderedPoolGradient(dy, winner, shape)).to(type));
  // Of the input only its shape and layout are read.
  const Tensor like = channelsFirst(at::empty(shape, dy.options()));
  const Tensor dx = at::max_pool2d_with_indices_backward(dy, like, {size, size}, {stride, stride}, {padding, padding}, {1, 1}, false, winner);
  return call.wrap(channelsLast(dx).to(type));
}

napi_value globalAveragePool(Call& call) {
  const Tensor& x = call.tensor(0);
  TORCH_CHECK(x.dim() == 4, "globalAveragePool: expected [batch, height, width, channels], got ", x.sizes());
  return call.wrap(at::mean(x, {1, 2}, false, wideType(x)));
}

napi_value globalAveragePoolGradient(Call& call) {
  const auto shape = call.integers(1);
  const Tensor share = widened(call.tensor(0)) / static_cast<double>(shape[1] * shape[2]);
  return call.wrap(share.to(typeAt(call, 2)).view({shape[0], 1, 1, shape[3]}).expand(shape).contiguous());
}

}  // namespace covey::generic
