// Layer normalisation with an optional residual sum in the same pass. Statistics and sums are fp32.
#include <cmath>

#include "generic.h"
#include "rows.h"

namespace covey {
namespace {

/// One row as floats, in scratch memory padded to whole vectors.
struct Row {
  std::vector<float> values;
  explicit Row(int64_t width) : values(paddedWidth(width), 0.0f) {}
  float* data() { return values.data(); }
};

struct Statistics {
  float mean;
  float reciprocalStd;
};

/// Two passes: the variance is summed around the mean, not as a difference of squares.
Statistics statisticsOf(const float* row, int64_t width, float eps) {
  Floats sum{};
  for (int64_t i = 0; i < width; i += lanes) sum += load(row + i);
  const float mean = sumOf(sum) / static_cast<float>(width);
  Floats squares{};
  for (int64_t i = 0; i + lanes <= width; i += lanes) {
    const Floats centred = load(row + i) - mean;
    squares += centred * centred;
  }
  float total = sumOf(squares);
  for (int64_t i = width / lanes * lanes; i < width; i++) total += (row[i] - mean) * (row[i] - mean);
  return {mean, 1.0f / std::sqrt(total / static_cast<float>(width) + eps)};
}

template <class T>
void normaliseRows(const T* x, const T* delta, const float* weight, const float* bias, float eps, int64_t width, int64_t begin, int64_t end, T* sum,
                   T* y, float* statistics) {
  Row row(width);
  for (int64_t r = begin; r < end; r++) {
    const int64_t offset = r * width;
    for (int64_t i = 0; i < width; i += lanes) {
      Floats value = loadPart(x + offset + i, width - i);
      if (delta != nullptr) {
        value += loadPart(delta + offset + i, width - i);
        // Normalised is what was stored: backward sees the rounded sum only.
        storePart(sum + offset + i, value, width - i);
        value = loadPart(sum + offset + i, width - i);
      }
      store(row.data() + i, value);
    }
    const Statistics s = statisticsOf(row.data(), width, eps);
    statistics[2 * r] = s.mean;
    statistics[2 * r + 1] = s.reciprocalStd;
    for (int64_t i = 0; i < width; i += lanes) {
      const Floats centred = (load(row.data() + i) - s.mean) * s.reciprocalStd;
      storePart(y + offset + i, centred * loadPart(weight + i, width - i) + loadPart(bias + i, width - i), width - i);
    }
  }
}

// layerNorm(x, delta | null, weight, bias, eps) -> [sum | null, y, statistics [rows, 2]]
napi_value layerNorm(Call& call) {
  requireFloating(call.tensor(0), "layerNorm");
  const Tensor x = call.tensor(0).contiguous();
  const Tensor delta = call.isNull(1) ? Tensor() : likeIn(call.tensor(1), x);
  const Tensor weight = call.tensor(2).contiguous();
  const Tensor bias = call.tensor(3).contiguous();
  const float eps = static_cast<float>(call.number(4));
  const int64_t width = x.size(-1);
  const int64_t rows = x.numel() / width;
  TORCH_CHECK(weight.scalar_type() == at::kFloat && weight.numel() == width && bias.scalar_type() == at::kFloat && bias.numel() == width,
              "layerNorm: weight and bias must be float32 of length ", width);
  const Tensor y = at::empty_like(x);
  const Tensor sum = delta.defined() ? at::empty_like(x) : Tensor();
  const Tensor statistics = at::empty({rows, 2}, at::TensorOptions().dtype(at::kFloat));
  byStorage(x, [&](auto zero) {
    using T = decltype(zero);
    eachRow(rows, width, [&](int64_t begin, int64_t end) {
      normaliseRows<T>(x.data_ptr<T>(), delta.defined() ? delta.data_ptr<T>() : nullptr, weight.data_ptr<float>(), bias.data_ptr<float>(), eps,
                       width, begin, end, sum.defined() ? sum.data_ptr<T>() : nullptr, y.data_ptr<T>(), statistics.data_ptr<float>());
    });
  });
  return call.wrap({sum, y, statistics});
}

/// dx = r·(g − mean(g) − x̂·mean(g·x̂)) + dsum with g = dy·weight, x̂ = (x − mean)·r; sums: [dweight | dbias].
template <class T>
void gradientRow(const T* dy, const T* dsum, const T* x, const float* weight, Statistics s, int64_t width, T* dx, float* sums, float* scratch) {
  const int64_t padded = paddedWidth(width);
  float* g = scratch;
  float* normalised = scratch + padded;
  Floats sumG{}, sumGx{};
  for (int64_t i = 0; i < width; i += lanes) {
    const Floats upstream = loadPart(dy + i, width - i);
    const Floats hat = (loadPart(x + i, width - i) - s.mean) * s.reciprocalStd;
    // Beyond the row's end upstream is zero, so the padding adds nothing.
    const Floats scaled = upstream * loadPart(weight + i, width - i);
    store(g + i, scaled);
    store(normalised + i, hat);
    sumG += scaled;
    sumGx += scaled * hat;
    store(sums + i, load(sums + i) + upstream * hat);
    store(sums + padded + i, load(sums + padded + i) + upstream);
  }
  const float meanG = sumOf(sumG) / static_cast<float>(width);
  const float meanGx = sumOf(sumGx) / static_cast<float>(width);
  for (int64_t i = 0; i < width; i += lanes) {
    Floats value = (load(g + i) - meanG - load(normalised + i) * meanGx) * s.reciprocalStd;
    if (dsum != nullptr) value += loadPart(dsum + i, width - i);
    storePart(dx + i, value, width - i);
  }
}

// layerNormGradient(dy, dsum | null, x, statistics, weight) -> [dx, dweight, dbias]
napi_value layerNormGradient(Call& call) {
  const Tensor x = call.tensor(2).contiguous();
  const Tensor dy = likeIn(call.tensor(0), x);
  const Tensor dsum = call.isNull(1) ? Tensor() : likeIn(call.tensor(1), x);
  const Tensor& statistics = call.tensor(3);
  const Tensor weight = call.tensor(4).contiguous();
  const int64_t width = x.size(-1);
  const int64_t rows = x.numel() / width;
  const Tensor dx = at::empty_like(x);
  std::vector<Tensor> totals;
  byStorage(x, [&](auto zero) {
    using T = decltype(zero);
    const float* s = statistics.data_ptr<float>();
    totals = sumOverRows(rows, width, 2, [&](int64_t begin, int64_t end, float* sums) {
      std::vector<float> scratch(2 * paddedWidth(width));
      for (int64_t r = begin; r < end; r++) {
        const int64_t offset = r * width;
        gradientRow<T>(dy.data_ptr<T>() + offset, dsum.defined() ? dsum.data_ptr<T>() + offset : nullptr, x.data_ptr<T>() + offset,
                       weight.data_ptr<float>(), {s[2 * r], s[2 * r + 1]}, width, dx.data_ptr<T>() + offset, sums, scratch.data());
      }
    });
  });
  return call.wrap({dx, totals[0], totals[1]});
}

}  // namespace

void defineLayerNorm(napi_env env, napi_value exports) {
  define(env, exports, {{"layerNorm", entry<layerNorm, generic::layerNorm>}, {"layerNormGradient", entry<layerNormGradient, generic::layerNormGradient>}});
}
}  // namespace covey
