// Optimisers that need one pass over parameter, gradient, slots and the parameter's bf16 copy: AdamW, momentum (SGD, LARS), Lion; and the
// averages of weights. The rules are those of engine/optim/update-rule.ts.
#include "optimizer.h"

#include <cmath>

#include "generic.h"

namespace covey {
namespace {

c10::BFloat16* halfData(const Tensor& half, int64_t size, const char* kernel) {
  if (!half.defined()) return nullptr;
  TORCH_CHECK(half.scalar_type() == at::kBFloat16 && half.is_contiguous() && half.numel() == size, kernel,
              ": a bf16 copy does not fit its parameter");
  return half.data_ptr<c10::BFloat16>();
}

float* checkedData(const Tensor& tensor, int64_t size, const char* kernel, const char* what) {
  requireCpu(tensor, kernel);
  TORCH_CHECK(tensor.scalar_type() == at::kFloat && tensor.is_contiguous() && tensor.numel() == size, kernel, ": ", what,
              " must be contiguous float32 of ", size, " elements, got ", tensor.scalar_type(), " ", tensor.sizes());
  return tensor.data_ptr<float>();
}

std::vector<Tensor> slotAt(const Call& call, size_t index, size_t count, const char* kernel) {
  if (call.isNull(index)) return {};
  std::vector<Tensor> slot = call.tensors(index);
  TORCH_CHECK(slot.size() == count, kernel, ": ", slot.size(), " slots for ", count, " parameters");
  return slot;
}

struct AdamW {
  float gradientScale, beta1, beta2, eps, decay, stepSize, secondCorrection;
  void operator()(const Slice& s, int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; i++) {
      const float g = s.gradient[i] * gradientScale;
      const float m = s.first[i] = beta1 * s.first[i] + (1.0f - beta1) * g;
      const float v = s.second[i] = beta2 * s.second[i] + (1.0f - beta2) * g * g;
      s.parameter[i] = s.parameter[i] * decay - stepSize * m / (std::sqrt(v) * secondCorrection + eps);
    }
  }
};

template <bool nesterov>
struct Momentum {
  float gradientScale, momentum, weightDecay, trust, rate;
  void operator()(const Slice& s, int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; i++) {
      const float d = (s.gradient[i] * gradientScale + weightDecay * s.parameter[i]) * trust;
      const float m = s.first[i] = momentum * s.first[i] + d;
      s.parameter[i] -= rate * (nesterov ? d + momentum * m : m);
    }
  }
};

struct Lion {
  float gradientScale, beta1, beta2, decay, rate;
  void operator()(const Slice& s, int64_t begin, int64_t end) const {
    for (int64_t i = begin; i < end; i++) {
      const float g = s.gradient[i] * gradientScale;
      const float c = beta1 * s.first[i] + (1.0f - beta1) * g;
      const float sign = static_cast<float>(c > 0) - static_cast<float>(c < 0);
      s.parameter[i] = s.parameter[i] * decay - rate * sign;
      s.first[i] = beta2 * s.first[i] + (1.0f - beta2) * g;
    }
  }
};

// adamW(…update, weightDecays, rates, beta1, beta2, eps, step)
napi_value adamW(Call& call) {
  const UpdateArguments update = updateArguments(call, "adamW");
  const auto weightDecays = perParameter(call, 7, update, "adamW"), rates = perParameter(call, 8, update, "adamW");
  const double beta1 = call.number(9), beta2 = call.number(10), step = call.number(12);
  for (size_t i = 0; i < update.slices.size(); i++) {
    sweep(update.slices[i], AdamW{update.gradientScale, static_cast<float>(beta1), static_cast<float>(beta2), static_cast<float>(call.number(11)),
                                  static_cast<float>(1 - rates[i] * weightDecays[i]), static_cast<float>(rates[i] / (1 - std::pow(beta1, step))),
                                  static_cast<float>(1 / std::sqrt(1 - std::pow(beta2, step)))});
  }
  return call.undefined();
}

// momentum(…update, weightDecays, trusts, rates, momentum, nesterov)
napi_value momentum(Call& call) {
  const UpdateArguments update = updateArguments(call, "momentum");
  const auto weightDecays = perParameter(call, 7, update, "momentum"), trusts = perParameter(call, 8, update, "momentum"),
             rates = perParameter(call, 9, update, "momentum");
  const float factor = static_cast<float>(call.number(10));
  const bool nesterov = call.boolean(11);
  for (size_t i = 0; i < update.slices.size(); i++) {
    const float weightDecay = static_cast<float>(weightDecays[i]), trust = static_cast<float>(trusts[i]), rate = static_cast<float>(rates[i]);
    if (nesterov) {
      sweep(update.slices[i], Momentum<true>{update.gradientScale, factor, weightDecay, trust, rate});
    } else {
      sweep(update.slices[i], Momentum<false>{update.gradientScale, factor, weightDecay, trust, rate});
    }
  }
  return call.undefined();
}

// lion(…update, weightDecays, rates, beta1, beta2)
napi_value lion(Call& call) {
  const UpdateArguments update = updateArguments(call, "lion");
  const auto weightDecays = perParameter(call, 7, update, "lion"), rates = perParameter(call, 8, update, "lion");
  for (size_t i = 0; i < update.slices.size(); i++) {
    sweep(update.slices[i], Lion{update.gradientScale, static_cast<float>(call.number(9)), static_cast<float>(call.number(10)),
                                 static_cast<float>(1 - rates[i] * weightDecays[i]), static_cast<float>(rates[i])});
  }
  return call.undefined();
}

// averageInto(averages, values, weight): average += weight·(value − average), so that what does not move stays exactly where it is
napi_value averageInto(Call& call) {
  const auto averages = call.tensors(0), values = call.tensors(1);
  const float weight = static_cast<float>(call.number(2));
  TORCH_CHECK(averages.size() == values.size(), "averageInto: ", averages.size(), " averages of ", values.size(), " tensors");
  for (size_t t = 0; t < averages.size(); t++) {
    const int64_t size = values[t].numel();
    float* average = checkedData(averages[t], size, "averageInto", "average");
    const float* value = checkedData(values[t], size, "averageInto", "value");
    at::parallel_for(0, size, 16384, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) average[i] += weight * (value[i] - average[i]);
    });
  }
  return call.undefined();
}

}  // namespace

UpdateArguments updateArguments(Call& call, const char* kernel) {
  const auto parameters = call.tensors(0);
  const auto firsts = slotAt(call, 1, parameters.size(), kernel), seconds = slotAt(call, 2, parameters.size(), kernel);
  size_t length;
  const float* gradient = call.floats(3, &length);
  const auto offsets = call.numbers(5);
  const auto halves = call.optionalTensors(6);
  TORCH_CHECK(offsets.size() == parameters.size() && halves.size() == parameters.size(), kernel,
              ": one offset and bf16 copy (or null) per parameter are needed");
  UpdateArguments update{{}, static_cast<float>(call.number(4))};
  for (size_t i = 0; i < parameters.size(); i++) {
    const int64_t size = parameters[i].numel(), offset = static_cast<int64_t>(offsets[i]);
    TORCH_CHECK(offset >= 0 && offset + size <= static_cast<int64_t>(length), kernel, ": gradient has ", length, " elements, a parameter's are ",
                offset, " to ", offset + size);
    update.slices.push_back({checkedData(parameters[i], size, kernel, "parameter"),
                             firsts.empty() ? nullptr : checkedData(firsts[i], size, kernel, "first slot"),
                             seconds.empty() ? nullptr : checkedData(seconds[i], size, kernel, "second slot"), gradient + offset,
                             halfData(halves[i], size, kernel), size});
  }
  return update;
}

std::vector<double> perParameter(const Call& call, size_t index, const UpdateArguments& update, const char* kernel) {
  std::vector<double> numbers = call.numbers(index);
  TORCH_CHECK(numbers.size() == update.slices.size(), kernel, ": ", numbers.size(), " numbers for ", update.slices.size(), " parameters");
  return numbers;
}

double* outputRows(const Call& call, size_t index, const UpdateArguments& update, size_t rows, const char* kernel) {
  const TypedArray out = call.typedArray(index);
  TORCH_CHECK(out.type == napi_float64_array && out.length == rows * update.slices.size(), kernel, ": a Float64Array of ", rows,
              " numbers per parameter is needed");
  return static_cast<double*>(out.data);
}

void defineOptimizer(napi_env env, napi_value exports) {
  define(env, exports, {{"adamW", entry<adamW, generic::adamW>}, {"momentum", entry<momentum>}, {"lion", entry<lion>}, {"averageInto", entry<averageInto, generic::averageInto>}});
}
}  // namespace covey
