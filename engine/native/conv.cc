// 2-D convolution and its gradients over channels-last activations. A [B,H,W,C] tensor seen as [B,C,H,W] is what libtorch calls
// channels-last, so oneDNN (or cuDNN) works on our memory as it is; only weights are turned, once per update in bf16.
#include "conv.h"
#include "generic.h"

namespace covey {
namespace {

/// dst[r][c] = src[c][r] with a change of type, for each of `count` matrices.
template <class From, class To>
void transposeEach(const From* from, To* to, int64_t count, int64_t rows, int64_t columns) {
  at::parallel_for(0, count, std::max<int64_t>(1, 32768 / (rows * columns)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      const From* source = from + i * rows * columns;
      To* target = to + i * rows * columns;
      for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < columns; c++) target[c * rows + r] = static_cast<To>(static_cast<float>(source[r * columns + c]));
      }
    }
  });
}

// convWeight(weight_OIHW, scalarType) -> the same weight, channels-last in memory
napi_value convWeight(Call& call) {
  const Tensor& weight = call.tensor(0);
  const auto type = static_cast<at::ScalarType>(call.integer(1));
  TORCH_CHECK(weight.dim() == 4, "conv2d: the weight must be [out, in, height, width], got ", weight.sizes());
  if (!weight.device().is_cpu() || weight.scalar_type() != at::kFloat || !weight.is_contiguous()) {
    return call.wrap(weight.to(type).contiguous(at::MemoryFormat::ChannelsLast));
  }
  const int64_t window = weight.size(2) * weight.size(3);
  if (window == 1) return call.wrap(weight.to(type));
  const Tensor turned = at::empty(weight.sizes(), weight.options().dtype(type).memory_format(at::MemoryFormat::ChannelsLast));
  byStorage(turned, [&](auto zero) {
    using T = decltype(zero);
    transposeEach(weight.data_ptr<float>(), turned.data_ptr<T>(), weight.size(0), weight.size(1), window);
  });
  return call.wrap(turned);
}

/// A weight's gradient as fp32, contiguous [O,I,H,W], whatever layout the library chose.
Tensor masterGradient(const Tensor& gradient) {
  const int64_t window = gradient.size(2) * gradient.size(3);
  const bool turned = gradient.is_contiguous(at::MemoryFormat::ChannelsLast) && !gradient.is_contiguous();
  if (!turned || !gradient.device().is_cpu()) return gradient.to(at::kFloat).contiguous();
  const Tensor result = at::empty(gradient.sizes(), gradient.options().dtype(at::kFloat).memory_format(at::MemoryFormat::Contiguous));
  byStorage(gradient, [&](auto zero) {
    using T = decltype(zero);
    transposeEach(gradient.data_ptr<T>(), result.data_ptr<float>(), gradient.size(0), window, gradient.size(1));
  });
  return result;
}

// conv2d(x_BHWC, weight, stride, padding) -> y_BHWC; the weight as convWeight makes it, in x's type
napi_value conv2d(Call& call) {
  const Tensor x = call.tensor(0).contiguous();
  const int64_t stride = call.integer(2), padding = call.integer(3);
  const Tensor y = at::convolution(channelsFirst(x), call.tensor(1), {}, {stride, stride}, {padding, padding}, {1, 1}, false, {0, 0}, 1);
  return call.wrap(channelsLast(y));
}

// conv2dGradient(dy_BHWC, x_BHWC, weight, stride, padding, wantX, wantWeight) -> [dx | null, fp32 dweight_OIHW | null]
napi_value conv2dGradient(Call& call) {
  const auto [dx, dweight] = convolutionGradients(call);
  return call.wrap({dx, dweight.defined() ? masterGradient(dweight) : Tensor()});
}

// relu(x) -> max(x, 0)
napi_value relu(Call& call) { return call.wrap(at::relu(call.tensor(0))); }

// reluGradient(dy, y) -> dy where y > 0
napi_value reluGradient(Call& call) {
  const Tensor y = call.tensor(1).contiguous();
  return call.wrap(at::threshold_backward(likeIn(call.tensor(0), y), y, 0));
}

}  // namespace

void defineConv(napi_env env, napi_value exports) {
  define(env, exports, {{"convWeight", entry<convWeight, generic::convWeight>}, {"conv2d", entry<conv2d>}, {"conv2dGradient", entry<conv2dGradient, generic::conv2dGradient>},
                        {"relu", entry<relu>}, {"reluGradient", entry<reluGradient>}});
}
}  // namespace covey
