// What both forms of convolution share; see conv.cc and generic_vision.cc.
#pragma once
#include <array>
#include <utility>

#include "context.h"

namespace covey {
/// [B,H,W,C] as libtorch's channels-last [B,C,H,W]: no copy either way.
inline Tensor channelsFirst(const Tensor& x_BHWC) { return x_BHWC.permute({0, 3, 1, 2}); }
inline Tensor channelsLast(const Tensor& x_BCHW) { return x_BCHW.permute({0, 2, 3, 1}).contiguous(); }

/// conv2dGradient's [dx_BHWC, dweight in the weight's type and any layout]; undefined where it is not wanted.
inline std::pair<Tensor, Tensor> convolutionGradients(const Call& call) {
  const Tensor x = call.tensor(1).contiguous();
  const Tensor dy = likeIn(call.tensor(0), x);
  const int64_t stride = call.integer(3), padding = call.integer(4);
  const std::array<bool, 3> wanted{call.boolean(5), call.boolean(6), false};
  const auto [dx, dweight, dbias] = at::convolution_backward(channelsFirst(dy), channelsFirst(x), call.tensor(2), at::OptionalIntArrayRef(),
                                                             {stride, stride}, {padding, padding}, {1, 1}, false, {0, 0}, 1, wanted);
  return {wanted[0] ? channelsLast(dx) : Tensor(), wanted[1] ? dweight : Tensor()};
}
}  // namespace covey
