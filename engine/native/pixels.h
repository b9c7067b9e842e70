// The arguments of pixels(bytes, shape [B, H, W, C], scale, shift, bf16), checked; see tokens.cc and generic_tokens.cc.
#pragma once
#include "context.h"

namespace covey {
struct PixelArguments {
  const uint8_t* bytes;
  std::vector<int64_t> shape;
  /// One per channel, both.
  const float *scale, *shift;
  bool bfloat16;
  int64_t channels() const { return shape.back(); }
};

inline PixelArguments pixelArguments(const Call& call) {
  const TypedArray bytes = call.typedArray(0);
  const auto shape = call.integers(1);
  size_t scaleLength, shiftLength;
  const float* scale = call.floats(2, &scaleLength);
  const float* shift = call.floats(3, &shiftLength);
  const auto channels = static_cast<size_t>(shape.back());
  TORCH_CHECK(bytes.type == napi_uint8_array || bytes.type == napi_uint8_clamped_array, "pixels: expected a Uint8Array");
  TORCH_CHECK(scaleLength == channels && shiftLength == channels, "pixels: one scale and shift per channel");
  TORCH_CHECK(c10::multiply_integers(shape) == static_cast<int64_t>(bytes.length), "pixels: ", bytes.length, " bytes do not fill ", shape);
  return {static_cast<const uint8_t*>(bytes.data), shape, scale, shift, call.boolean(4)};
}
}  // namespace covey
