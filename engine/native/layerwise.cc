// What layer-wise rates need (LARS, LAMB): norms per parameter, and LAMB's update in two passes around its trust ratio.
#include <cmath>

#include "optimizer.h"

namespace covey {
namespace {

/// LAMB's direction r + λ·p from moments as they are (You et al. 2020, Algorithm 2).
struct Direction {
  float firstCorrection, secondCorrection, eps, weightDecay;
  float operator()(const Slice& s, int64_t i) const {
    return s.first[i] * firstCorrection / (std::sqrt(s.second[i]) * secondCorrection + eps) + weightDecay * s.parameter[i];
  }
};

struct Moments {
  float gradientScale, beta1, beta2;
  void operator()(const Slice& s, int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; i++) {
      const float g = s.gradient[i] * gradientScale;
      s.first[i] = beta1 * s.first[i] + (1.0f - beta1) * g;
      s.second[i] = beta2 * s.second[i] + (1.0f - beta2) * g * g;
    }
  }
};

struct LambStep {
  Direction direction;
  float rate;
  void operator()(const Slice& s, int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; i++) s.parameter[i] -= rate * direction(s, i);
  }
};

/// beta1, beta2, eps, step and bias correction from argument `index` on.
Direction directionOf(const Call& call, size_t index, double weightDecay) {
  const double beta1 = call.number(index), beta2 = call.number(index + 1), step = call.number(index + 3);
  const bool corrected = call.boolean(index + 4);
  return {static_cast<float>(corrected ? 1 / (1 - std::pow(beta1, step)) : 1), static_cast<float>(corrected ? 1 / std::sqrt(1 - std::pow(beta2, step)) : 1),
          static_cast<float>(call.number(index + 2)), static_cast<float>(weightDecay)};
}

double parameterNorm(const Slice& s) {
  return std::sqrt(sumOfSquaresOf(s.size, [&](int64_t i) { return s.parameter[i]; }));
}

// gradientNorms(…update, weightDecays, out): per parameter ‖p‖, ‖g‖ and ‖g + λ·p‖
napi_value gradientNorms(Call& call) {
  const UpdateArguments update = updateArguments(call, "gradientNorms");
  const auto weightDecays = perParameter(call, 7, update, "gradientNorms");
  double* out = outputRows(call, 8, update, 3, "gradientNorms");
  for (size_t at = 0; at < update.slices.size(); at++, out += 3) {
    const Slice& s = update.slices[at];
    const float scale = update.gradientScale, decay = static_cast<float>(weightDecays[at]);
    out[0] = parameterNorm(s);
    out[1] = std::sqrt(sumOfSquaresOf(s.size, [&](int64_t i) { return s.gradient[i] * scale; }));
    out[2] = std::sqrt(sumOfSquaresOf(s.size, [&](int64_t i) { return s.gradient[i] * scale + decay * s.parameter[i]; }));
  }
  return call.undefined();
}

// lambMoments(…update, weightDecays, beta1, beta2, eps, step, biasCorrection, out): moments advance; per parameter ‖p‖ and ‖r + λ·p‖
napi_value lambMoments(Call& call) {
  const UpdateArguments update = updateArguments(call, "lambMoments");
  const auto weightDecays = perParameter(call, 7, update, "lambMoments");
  const Moments moments{update.gradientScale, static_cast<float>(call.number(8)), static_cast<float>(call.number(9))};
  double* out = outputRows(call, 13, update, 2, "lambMoments");
  for (size_t at = 0; at < update.slices.size(); at++, out += 2) {
    Slice s = update.slices[at];
    // The parameter does not change here, nor does its bf16 copy.
    s.half = nullptr;
    sweep(s, moments);
    const Direction direction = directionOf(call, 8, weightDecays[at]);
    out[0] = parameterNorm(s);
    out[1] = std::sqrt(sumOfSquaresOf(s.size, [&](int64_t i) { return direction(s, i); }));
  }
  return call.undefined();
}

// lambStep(…update, weightDecays, beta1, beta2, eps, step, biasCorrection, rates)
napi_value lambStep(Call& call) {
  const UpdateArguments update = updateArguments(call, "lambStep");
  const auto weightDecays = perParameter(call, 7, update, "lambStep"), rates = perParameter(call, 13, update, "lambStep");
  for (size_t at = 0; at < update.slices.size(); at++) {
    sweep(update.slices[at], LambStep{directionOf(call, 8, weightDecays[at]), static_cast<float>(rates[at])});
  }
  return call.undefined();
}

}  // namespace

void defineLayerwise(napi_env env, napi_value exports) {
  define(env, exports, {{"gradientNorms", entry<gradientNorms>}, {"lambMoments", entry<lambMoments>}, {"lambStep", entry<lambStep>}});
}
}  // namespace covey
