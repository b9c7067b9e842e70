// Batch normalisation over all axes but the last, with an optional residual sum and ReLU in the same pass. Statistics and sums are fp32
// over blocks of rows whose size depends on the width alone, combined in order in fp64: the bits do not depend on threads.
#include <cmath>

#include "generic.h"
#include "rows.h"

namespace covey {
namespace {

/// Rows per block: a block stays in the second-level cache while it is read twice.
int64_t blockRowsFor(int64_t width) { return std::max<int64_t>(16, 65536 / width); }

template <class F>
void eachBlock(int64_t rows, int64_t width, F&& visit) {
  const int64_t size = blockRowsFor(width);
  at::parallel_for(0, (rows + size - 1) / size, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block++) visit(block, block * size, std::min(rows, (block + 1) * size));
  });
}

/// Per block and channel: the mean, and the sum of squares around it. Summed around the first row, so that a large mean costs no digits.
template <class T>
void blockMoments(const T* x, int64_t width, int64_t begin, int64_t end, float* mean, float* squares) {
  const T* pivot = x + begin * width;
  for (int64_t r = begin + 1; r < end; r++) {
    const T* row = x + r * width;
    for (int64_t i = 0; i < width; i += lanes) {
      store(mean + i, load(mean + i) + (loadPart(row + i, width - i) - loadPart(pivot + i, width - i)));
    }
  }
  const float reciprocal = 1.0f / static_cast<float>(end - begin);
  for (int64_t i = 0; i < width; i += lanes) store(mean + i, loadPart(pivot + i, width - i) + load(mean + i) * reciprocal);
  for (int64_t r = begin; r < end; r++) {
    const T* row = x + r * width;
    for (int64_t i = 0; i < width; i += lanes) {
      const Floats centred = loadPart(row + i, width - i) - load(mean + i);
      store(squares + i, load(squares + i) + centred * centred);
    }
  }
}

/// What normalises: [mean | 1/√(variance + eps)], and the variance itself.
struct Statistics {
  Tensor pair;
  std::vector<double> variance;
};

/// Chan, Golub & LeVeque 1979: moments of blocks into moments of the whole.
template <class T>
Statistics batchStatistics(const T* x, int64_t rows, int64_t width, double eps) {
  const int64_t padded = paddedWidth(width), size = blockRowsFor(width), blocks = (rows + size - 1) / size;
  std::vector<float> moments(blocks * 2 * padded, 0.0f);
  eachBlock(rows, width, [&](int64_t block, int64_t begin, int64_t end) {
    float* own = moments.data() + block * 2 * padded;
    blockMoments(x, width, begin, end, own, own + padded);
  });
  std::vector<double> mean(width, 0.0), squares(width, 0.0);
  double seen = 0;
  for (int64_t block = 0; block < blocks; block++) {
    const float* own = moments.data() + block * 2 * padded;
    const double count = static_cast<double>(std::min(rows, (block + 1) * size) - block * size);
    const double share = count / (seen + count), weight = seen * share;
    for (int64_t c = 0; c < width; c++) {
      const double difference = own[c] - mean[c];
      mean[c] += difference * share;
      squares[c] += own[padded + c] + difference * difference * weight;
    }
    seen += count;
  }
  Statistics result{at::empty({2, width}, at::TensorOptions().dtype(at::kFloat)), std::move(squares)};
  float* pair = result.pair.data_ptr<float>();
  for (int64_t c = 0; c < width; c++) {
    result.variance[c] /= static_cast<double>(rows);
    pair[c] = static_cast<float>(mean[c]);
    pair[width + c] = static_cast<float>(1.0 / std::sqrt(result.variance[c] + eps));
  }
  return result;
}

Statistics runningStatistics(const Tensor& mean, const Tensor& variance, double eps) {
  const int64_t width = mean.numel();
  Statistics result{at::empty({2, width}, at::TensorOptions().dtype(at::kFloat)), {}};
  float* pair = result.pair.data_ptr<float>();
  for (int64_t c = 0; c < width; c++) {
    pair[c] = mean.data_ptr<float>()[c];
    pair[width + c] = static_cast<float>(1.0 / std::sqrt(static_cast<double>(variance.data_ptr<float>()[c]) + eps));
  }
  return result;
}

/// running ← (1 − momentum)·running + momentum·new, the variance without bias.
void updateRunning(const Statistics& s, int64_t rows, double momentum, const Tensor& mean, const Tensor& variance) {
  const double unbiased = rows > 1 ? static_cast<double>(rows) / static_cast<double>(rows - 1) : 1.0;
  float* means = mean.data_ptr<float>();
  float* variances = variance.data_ptr<float>();
  for (int64_t c = 0; c < mean.numel(); c++) {
    means[c] = static_cast<float>((1 - momentum) * means[c] + momentum * s.pair.data_ptr<float>()[c]);
    variances[c] = static_cast<float>((1 - momentum) * variances[c] + momentum * s.variance[c] * unbiased);
  }
}

/// Per channel, padded: what a row is normalised with.
struct Channels {
  std::vector<float> values;
  int64_t padded;
  Channels(const Tensor& pair, const Tensor& weight, const Tensor& bias) : values(4 * paddedWidth(weight.numel()), 0.0f),
                                                                          padded(paddedWidth(weight.numel())) {
    const int64_t width = weight.numel();
    const float* statistics = pair.data_ptr<float>();
    for (int64_t c = 0; c < width; c++) {
      values[c] = statistics[c];
      values[padded + c] = statistics[width + c];
      values[2 * padded + c] = statistics[width + c] * weight.data_ptr<float>()[c];
      values[3 * padded + c] = bias.data_ptr<float>()[c];
    }
  }
  Floats mean(int64_t i) const { return load(values.data() + i); }
  Floats reciprocalStd(int64_t i) const { return load(values.data() + padded + i); }
  Floats scale(int64_t i) const { return load(values.data() + 2 * padded + i); }
  Floats bias(int64_t i) const { return load(values.data() + 3 * padded + i); }
  /// The one formula for forward and for backward's question whether ReLU let the value through.
  Floats normalised(Floats x, int64_t i) const { return (x - mean(i)) * scale(i) + bias(i); }
};

template <class T, bool RELU, bool RESIDUAL>
void normalise(const T* x, const T* residual, const Channels& channels, int64_t rows, int64_t width, T* y) {
  eachRow(rows, width, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t offset = r * width;
      for (int64_t i = 0; i < width; i += lanes) {
        Floats value = channels.normalised(loadPart(x + offset + i, width - i), i);
        if (RESIDUAL) value += loadPart(residual + offset + i, width - i);
        if (RELU) value = select(value < 0.0f, Floats{}, value);  // NaN stays NaN
        storePart(y + offset + i, value, width - i);
      }
    }
  });
}

/// Turns two run-time flags into template arguments.
template <class F>
void byFlags(bool first, bool second, F&& f) {
  if (first) second ? f(std::true_type{}, std::true_type{}) : f(std::true_type{}, std::false_type{});
  else second ? f(std::false_type{}, std::true_type{}) : f(std::false_type{}, std::false_type{});
}

void requireChannels(const Tensor& tensor, int64_t width, const char* what) {
  requireCpu(tensor, "batchNorm");
  TORCH_CHECK(tensor.scalar_type() == at::kFloat && tensor.is_contiguous() && tensor.numel() == width, "batchNorm: ", what,
              " must be contiguous float32 of ", width, " channels, got ", tensor.scalar_type(), " ", tensor.sizes());
}

// batchNorm(x, residual | null, weight, bias, runningMean, runningVariance, training, momentum, eps, relu) -> [y, statistics [2, C]].
// In training the running statistics are updated in place.
napi_value batchNorm(Call& call) {
  requireFloating(call.tensor(0), "batchNorm");
  const Tensor x = call.tensor(0).contiguous();
  const Tensor residual = call.isNull(1) ? Tensor() : likeIn(call.tensor(1), x);
  const int64_t width = x.size(-1), rows = x.numel() / width;
  const char* names[] = {"weight", "bias", "running mean", "running variance"};
  for (int i = 0; i < 4; i++) requireChannels(call.tensor(2 + i), width, names[i]);
  const bool training = call.boolean(6);
  const double momentum = call.number(7), eps = call.number(8);
  TORCH_CHECK(!residual.defined() || residual.sizes() == x.sizes(), "batchNorm: the residual must have x's shape ", x.sizes(), ", got ",
              residual.sizes());
  const Tensor y = at::empty_like(x);
  Tensor pair;
  byStorage(x, [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.data_ptr<T>();
    const Statistics statistics =
        training ? batchStatistics(from, rows, width, eps) : runningStatistics(call.tensor(4), call.tensor(5), eps);
    if (training) updateRunning(statistics, rows, momentum, call.tensor(4), call.tensor(5));
    pair = statistics.pair;
    const Channels channels(pair, call.tensor(2), call.tensor(3));
    byFlags(call.boolean(9), residual.defined(), [&](auto relu, auto add) {
      const T* addend = residual.defined() ? residual.data_ptr<T>() : nullptr;
      normalise<T, relu.value, add.value>(from, addend, channels, rows, width, y.data_ptr<T>());
    });
  });
  return call.wrap({y, pair});
}

/// One backward: its inputs, outputs, and per channel the sums of g and of g·x̂ (g: dy where ReLU let the value through).
template <class T>
struct Backward {
  const T* dy;
  const T* x;
  /// The forward's result where a residual was added before ReLU: the mask cannot be had from x alone.
  const T* y;
  T* dx;
  /// Where wanted: g itself.
  T* dresidual;
  const Channels& channels;
  int64_t rows, width;

  template <bool RELU, bool RESIDUAL>
  Floats upstream(int64_t offset, int64_t i, Floats value) const {
    const Floats g = loadPart(dy + offset + i, width - i);
    if (!RELU) return g;
    const Floats passed = RESIDUAL ? loadPart(y + offset + i, width - i) : channels.normalised(value, i);
    return select(passed > 0.0f, g, Floats{});
  }

  template <bool RELU, bool RESIDUAL>
  std::vector<float> sums() const {
    const int64_t padded = channels.padded, size = blockRowsFor(width), blocks = (rows + size - 1) / size;
    std::vector<float> partial(blocks * 2 * padded, 0.0f);
    eachBlock(rows, width, [&](int64_t block, int64_t begin, int64_t end) {
      float* total = partial.data() + block * 2 * padded;
      for (int64_t r = begin; r < end; r++) {
        const int64_t offset = r * width;
        for (int64_t i = 0; i < width; i += lanes) {
          const Floats value = loadPart(x + offset + i, width - i);
          const Floats g = upstream<RELU, RESIDUAL>(offset, i, value);
          if (RELU && RESIDUAL && dresidual != nullptr) storePart(dresidual + offset + i, g, width - i);
          store(total + i, load(total + i) + g);
          store(total + padded + i, load(total + padded + i) + g * (value - channels.mean(i)));
        }
      }
    });
    std::vector<double> exact(2 * padded, 0.0);
    for (int64_t block = 0; block < blocks; block++) {
      for (int64_t i = 0; i < 2 * padded; i++) exact[i] += partial[block * 2 * padded + i];
    }
    std::vector<float> result(2 * padded);
    for (int64_t i = 0; i < padded; i++) {
      result[i] = static_cast<float>(exact[i]);
      result[padded + i] = static_cast<float>(exact[padded + i] * channels.values[padded + i]);
    }
    return result;
  }

  /// dx = scale·(g − mean(g) − x̂·mean(g·x̂)); with fixed statistics dx = scale·g.
  template <bool RELU, bool RESIDUAL>
  void inputGradient(const std::vector<float>& sums, bool training) const {
    const int64_t padded = channels.padded;
    std::vector<float> means(2 * padded, 0.0f);
    if (training) {
      for (int64_t i = 0; i < padded; i++) {
        means[i] = static_cast<float>(static_cast<double>(sums[i]) / static_cast<double>(rows));
        means[padded + i] = static_cast<float>(static_cast<double>(sums[padded + i]) / static_cast<double>(rows)) * channels.values[padded + i];
      }
    }
    const bool masked = RELU && RESIDUAL && dresidual != nullptr;
    eachRow(rows, width, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        const int64_t offset = r * width;
        for (int64_t i = 0; i < width; i += lanes) {
          const Floats value = loadPart(x + offset + i, width - i);
          const Floats g = masked ? loadPart(dresidual + offset + i, width - i) : upstream<RELU, RESIDUAL>(offset, i, value);
          const Floats centred = value - channels.mean(i);
          storePart(dx + offset + i, (g - load(means.data() + i) - centred * load(means.data() + padded + i)) * channels.scale(i), width - i);
        }
      }
    });
  }
};

// batchNormGradient(dy, x, y | null, statistics, weight, bias, training, relu) -> [dx, dweight, dbias, dresidual | null].
// y is given where a residual was added before ReLU; only then is there a dresidual (else it is dy).
napi_value batchNormGradient(Call& call) {
  const Tensor x = call.tensor(1).contiguous();
  const Tensor dy = likeIn(call.tensor(0), x);
  const Tensor y = call.isNull(2) ? Tensor() : likeIn(call.tensor(2), x);
  const bool training = call.boolean(6);
  const int64_t width = x.size(-1), rows = x.numel() / width;
  const Channels channels(call.tensor(3), call.tensor(4), call.tensor(5));
  const Tensor dx = at::empty_like(x);
  const Tensor dresidual = y.defined() ? at::empty_like(x) : Tensor();
  const auto options = at::TensorOptions().dtype(at::kFloat);
  const Tensor dweight = at::empty({width}, options), dbias = at::empty({width}, options);
  byStorage(x, [&](auto zero) {
    using T = decltype(zero);
    const Backward<T> backward{dy.data_ptr<T>(), x.data_ptr<T>(), y.defined() ? y.data_ptr<T>() : nullptr, dx.data_ptr<T>(),
                               y.defined() ? dresidual.data_ptr<T>() : nullptr, channels, rows, width};
    byFlags(call.boolean(7), y.defined(), [&](auto relu, auto residual) {
      const std::vector<float> sums = backward.template sums<relu.value, residual.value>();
      std::memcpy(dbias.data_ptr<float>(), sums.data(), width * sizeof(float));
      std::memcpy(dweight.data_ptr<float>(), sums.data() + channels.padded, width * sizeof(float));
      backward.template inputGradient<relu.value, residual.value>(sums, training);
    });
  });
  return call.wrap({dx, dweight, dbias, dresidual});
}

}  // namespace

void defineBatchNorm(napi_env env, napi_value exports) {
  define(env, exports, {{"batchNorm", entry<batchNorm, generic::batchNorm>}, {"batchNormGradient", entry<batchNormGradient, generic::batchNormGradient>}});
}
}  // namespace covey
