// The own kernels once more, as compositions of libtorch's operators: for tensors on a GPU, and for fp64 on the CPU, where gradients are
// checked against them. Signatures and results are those of the kernels of the same name; sums are fp32, or fp64 for fp64.
#pragma once
#include "context.h"

namespace covey::generic {

napi_value linear(Call&);
napi_value linearGelu(Call&);
napi_value linearInputGradient(Call&);
napi_value geluLinearInputGradient(Call&);
napi_value linearWeightGradient(Call&);
napi_value sumRows(Call&);
napi_value gelu(Call&);
napi_value geluGradient(Call&);
napi_value layerNorm(Call&);
napi_value layerNormGradient(Call&);
napi_value l2Normalize(Call&);
napi_value l2NormalizeGradient(Call&);
napi_value attention(Call&);
napi_value attentionGradient(Call&);
napi_value pixels(Call&);
napi_value embedding(Call&);
napi_value embeddingGradient(Call&);
napi_value addTokenAndPosition(Call&);
napi_value positionGradient(Call&);
napi_value selectTokens(Call&);
napi_value selectTokensGradient(Call&);
napi_value convWeight(Call&);
napi_value conv2dGradient(Call&);
napi_value batchNorm(Call&);
napi_value batchNormGradient(Call&);
napi_value maxPool2d(Call&);
napi_value maxPool2dGradient(Call&);
napi_value globalAveragePool(Call&);
napi_value globalAveragePoolGradient(Call&);
napi_value adamW(Call&);
napi_value averageInto(Call&);

/// What sums, statistics and parameters' gradients are held in.
inline at::ScalarType wideType(const Tensor& tensor) { return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }
inline Tensor widened(const Tensor& tensor) { return tensor.to(wideType(tensor)); }
/// As rows of the last axis.
inline Tensor asRows(const Tensor& tensor) { return tensor.reshape({-1, tensor.size(-1)}); }
inline at::ScalarType typeAt(const Call& call, size_t index) { return static_cast<at::ScalarType>(call.integer(index)); }

}  // namespace covey::generic
