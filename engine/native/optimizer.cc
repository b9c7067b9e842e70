// AdamW in one pass over parameter, gradient, moments and the parameter's bf16 copy.
#include <cmath>

#include "context.h"
#include "generic.h"
#include "vector.h"

namespace covey {
namespace {

struct Slice {
  float* parameter;
  float* first;
  float* second;
  const float* gradient;
  /// bf16 copy to keep up to date, or null.
  c10::BFloat16* half;
};

struct Rule {
  float gradientScale, beta1, beta2, eps, decay, stepSize, secondCorrection;
};

void update(const Slice& s, const Rule& rule, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; i++) {
    const float g = s.gradient[i] * rule.gradientScale;
    const float m = s.first[i] = rule.beta1 * s.first[i] + (1.0f - rule.beta1) * g;
    const float v = s.second[i] = rule.beta2 * s.second[i] + (1.0f - rule.beta2) * g * g;
    s.parameter[i] = s.parameter[i] * rule.decay - rule.stepSize * m / (std::sqrt(v) * rule.secondCorrection + rule.eps);
  }
}

/// Elements per cache-sized piece: the bf16 copy is made while the new parameters are still in the first-level cache.
constexpr int64_t pieceSize = 2048;

void updateWithCopy(const Slice& s, const Rule& rule, int64_t begin, int64_t end) {
  for (int64_t piece = begin; piece < end; piece += pieceSize) {
    const int64_t until = std::min(end, piece + pieceSize);
    update(s, rule, piece, until);
    if (s.half == nullptr) continue;
    for (int64_t i = piece; i < until; i += lanes) storePart(s.half + i, loadPart(s.parameter + i, until - i), until - i);
  }
}

c10::BFloat16* halfData(const Tensor& half, int64_t size) {
  if (!half.defined()) return nullptr;
  TORCH_CHECK(half.scalar_type() == at::kBFloat16 && half.is_contiguous() && half.numel() == size, "adamW: a bf16 copy does not fit its parameter");
  return half.data_ptr<c10::BFloat16>();
}

float* checkedData(const Tensor& tensor, int64_t size, const char* what) {
  requireCpu(tensor, "adamW");
  TORCH_CHECK(tensor.scalar_type() == at::kFloat && tensor.is_contiguous() && tensor.numel() == size, "adamW: ", what,
              " must be contiguous float32 of ", size, " elements, got ", tensor.scalar_type(), " ", tensor.sizes());
  return tensor.data_ptr<float>();
}

// adamW(parameters, firstMoments, secondMoments, gradient, gradientScale, weightDecays, lrScales, lr, beta1, beta2, eps, step, bf16 copies | null)
napi_value adamW(Call& call) {
  const auto parameters = call.tensors(0), firsts = call.tensors(1), seconds = call.tensors(2);
  size_t length;
  const float* gradient = call.floats(3, &length);
  const auto weightDecays = call.numbers(5), lrScales = call.numbers(6);
  const double lr = call.number(7), beta1 = call.number(8), beta2 = call.number(9), step = call.number(11);
  const auto halves = call.optionalTensors(12);
  int64_t total = 0;
  for (const Tensor& parameter : parameters) total += parameter.numel();
  TORCH_CHECK(total == static_cast<int64_t>(length), "adamW: gradient has ", length, " elements, the parameters ", total);
  TORCH_CHECK(firsts.size() == parameters.size() && seconds.size() == parameters.size() && weightDecays.size() == parameters.size() &&
                  lrScales.size() == parameters.size() && halves.size() == parameters.size(),
              "adamW: one moment pair, weight decay, lr scale and bf16 copy (or null) per parameter are needed");
  for (size_t i = 0; i < parameters.size(); i++) {
    const int64_t size = parameters[i].numel();
    const double rate = lr * lrScales[i];
    const Slice slice{checkedData(parameters[i], size, "parameter"), checkedData(firsts[i], size, "first moment"),
                      checkedData(seconds[i], size, "second moment"), gradient, halfData(halves[i], size)};
    const Rule rule{static_cast<float>(call.number(4)), static_cast<float>(beta1), static_cast<float>(beta2), static_cast<float>(call.number(10)),
                    static_cast<float>(1 - rate * weightDecays[i]), static_cast<float>(rate / (1 - std::pow(beta1, step))),
                    static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, step)))};
    at::parallel_for(0, size, 16384, [&](int64_t begin, int64_t end) { updateWithCopy(slice, rule, begin, end); });
    gradient += size;
  }
  return call.undefined();
}

}  // namespace

void defineOptimizer(napi_env env, napi_value exports) { define(env, exports, {{"adamW", entry<adamW, generic::adamW>}}); }
}  // namespace covey
