// Pooling over channels-last activations: maximum over windows (remembering which element won in a byte), and the mean over all places.
#include <limits>

#include "generic.h"
#include "rows.h"

namespace covey {
namespace {

typedef uint8_t Bytes __attribute__((vector_size(lanes)));
typedef uint8_t UnalignedBytes __attribute__((vector_size(lanes), aligned(1)));

Ints loadBytes(const uint8_t* from, int64_t count) {
  Bytes bytes{};
  if (count >= lanes) bytes = *reinterpret_cast<const UnalignedBytes*>(from);
  else std::memcpy(&bytes, from, count);
  return __builtin_convertvector(bytes, Ints);
}
void storeBytes(uint8_t* to, Ints value, int64_t count) {
  const Bytes bytes = __builtin_convertvector(value, Bytes);
  if (count >= lanes) *reinterpret_cast<UnalignedBytes*>(to) = bytes;
  else std::memcpy(to, &bytes, count);
}

struct Window {
  int64_t size, stride, padding;
  int64_t batch, height, width, channels, outHeight, outWidth;

  Window(const Tensor& x, int64_t size_, int64_t stride_, int64_t padding_)
      : size(size_), stride(stride_), padding(padding_), batch(x.size(0)), height(x.size(1)), width(x.size(2)), channels(x.size(3)),
        outHeight((height + 2 * padding - size) / stride + 1), outWidth((width + 2 * padding - size) / stride + 1) {
    TORCH_CHECK(size > 0 && size <= 15 && stride > 0 && padding >= 0 && 2 * padding <= size, "maxPool2d: windows of 1 to 15 with padding of at most half, got ",
                size, " and ", padding);
    TORCH_CHECK(height + 2 * padding >= size && width + 2 * padding >= size, "maxPool2d: a window of ", size, " does not fit ", x.sizes());
  }
};

/// One row of results. NaN wins, as in PyTorch.
template <class T>
void maximumRow(const T* image, const Window& w, int64_t row, T* y, uint8_t* winner) {
  const int64_t top = row * w.stride - w.padding;
  for (int64_t column = 0; column < w.outWidth; column++) {
    const int64_t left = column * w.stride - w.padding;
    for (int64_t c = 0; c < w.channels; c += lanes) {
      const int64_t rest = w.channels - c;
      Floats best = broadcast(-std::numeric_limits<float>::infinity());
      Ints at{};
      bool first = true;
      for (int64_t i = std::max<int64_t>(0, -top); i < w.size && top + i < w.height; i++) {
        for (int64_t j = std::max<int64_t>(0, -left); j < w.size && left + j < w.width; j++) {
          const Floats value = loadPart(image + ((top + i) * w.width + left + j) * w.channels + c, rest);
          const int32_t place = static_cast<int32_t>(i * w.size + j);
          const Ints greater = first ? ~Ints{} : ((value > best) | ((value != value) & (best == best)));
          best = select(greater, value, best);
          at = greater ? Ints{} + place : at;
          first = false;
        }
      }
      storePart(y + column * w.channels + c, best, rest);
      storeBytes(winner + column * w.channels + c, at, rest);
    }
  }
}

/// One row of the input's gradient: the sum over the windows that this element won, in fp32, in the windows' order.
template <class T>
void maximumGradientRow(const T* dy, const uint8_t* winner, const Window& w, int64_t row, T* dx) {
  const int64_t firstRow = std::max<int64_t>(0, (row + w.padding - w.size + w.stride) / w.stride);
  const int64_t lastRow = std::min(w.outHeight - 1, (row + w.padding) / w.stride);
  for (int64_t column = 0; column < w.width; column++) {
    const int64_t firstColumn = std::max<int64_t>(0, (column + w.padding - w.size + w.stride) / w.stride);
    const int64_t lastColumn = std::min(w.outWidth - 1, (column + w.padding) / w.stride);
    for (int64_t c = 0; c < w.channels; c += lanes) {
      const int64_t rest = w.channels - c;
      Floats sum{};
      for (int64_t i = firstRow; i <= lastRow; i++) {
        for (int64_t j = firstColumn; j <= lastColumn; j++) {
          const int64_t from = (i * w.outWidth + j) * w.channels + c;
          const auto place = static_cast<int32_t>((row + w.padding - i * w.stride) * w.size + column + w.padding - j * w.stride);
          sum += select(loadBytes(winner + from, rest) == Ints{} + place, loadPart(dy + from, rest), Floats{});
        }
      }
      storePart(dx + column * w.channels + c, sum, rest);
    }
  }
}

// maxPool2d(x_BHWC, size, stride, padding) -> [y_BHWC, winner: place within the window, uint8]
napi_value maxPool2d(Call& call) {
  requireFloating(call.tensor(0), "maxPool2d");
  const Tensor x = call.tensor(0).contiguous();
  TORCH_CHECK(x.dim() == 4, "maxPool2d: expected [batch, height, width, channels], got ", x.sizes());
  const Window w(x, call.integer(1), call.integer(2), call.integer(3));
  const Tensor y = at::empty({w.batch, w.outHeight, w.outWidth, w.channels}, x.options());
  const Tensor winner = at::empty(y.sizes(), x.options().dtype(at::kByte));
  byStorage(x, [&](auto zero) {
    using T = decltype(zero);
    eachRow(w.batch * w.outHeight, w.outWidth * w.channels, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        const T* image = x.data_ptr<T>() + r / w.outHeight * w.height * w.width * w.channels;
        const int64_t to = r * w.outWidth * w.channels;
        maximumRow(image, w, r % w.outHeight, y.data_ptr<T>() + to, winner.data_ptr<uint8_t>() + to);
      }
    });
  });
  return call.wrap({y, winner});
}

// maxPool2dGradient(dy, winner, inputShape, size, stride, padding, scalarType) -> dx
napi_value maxPool2dGradient(Call& call) {
  const Tensor& winner = call.tensor(1);
  const auto type = static_cast<at::ScalarType>(call.integer(6));
  const Tensor dx = at::empty(call.integers(2), winner.options().dtype(type));
  const Tensor dy = likeIn(call.tensor(0), dx);
  const Window w(dx, call.integer(3), call.integer(4), call.integer(5));
  byStorage(dx, [&](auto zero) {
    using T = decltype(zero);
    eachRow(w.batch * w.height, w.width * w.channels, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        const int64_t from = r / w.height * w.outHeight * w.outWidth * w.channels;
        maximumGradientRow(dy.data_ptr<T>() + from, winner.data_ptr<uint8_t>() + from, w, r % w.height, dx.data_ptr<T>() + r * w.width * w.channels);
      }
    });
  });
  return call.wrap(dx);
}

// globalAveragePool(x_BHWC) -> fp32 [B, C]
napi_value globalAveragePool(Call& call) {
  requireFloating(call.tensor(0), "globalAveragePool");
  const Tensor x = call.tensor(0).contiguous();
  TORCH_CHECK(x.dim() == 4, "globalAveragePool: expected [batch, height, width, channels], got ", x.sizes());
  const int64_t batch = x.size(0), places = x.size(1) * x.size(2), channels = x.size(3);
  const Tensor y = at::empty({batch, channels}, x.options().dtype(at::kFloat));
  byStorage(x, [&](auto zero) {
    using T = decltype(zero);
    eachRow(batch, places * channels, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; b++) {
        const T* image = x.data_ptr<T>() + b * places * channels;
        for (int64_t c = 0; c < channels; c += lanes) {
          Floats sum{};
          for (int64_t p = 0; p < places; p++) sum += loadPart(image + p * channels + c, channels - c);
          storePart(y.data_ptr<float>() + b * channels + c, sum / static_cast<float>(places), channels - c);
        }
      }
    });
  });
  return call.wrap(y);
}

// globalAveragePoolGradient(dy_BC, inputShape, scalarType) -> dx_BHWC
napi_value globalAveragePoolGradient(Call& call) {
  const Tensor dy = call.tensor(0).to(at::kFloat).contiguous();
  const Tensor dx = at::empty(call.integers(1), dy.options().dtype(static_cast<at::ScalarType>(call.integer(2))));
  const int64_t places = dx.size(1) * dx.size(2), channels = dx.size(3);
  byStorage(dx, [&](auto zero) {
    using T = decltype(zero);
    eachRow(dx.size(0) * places, channels, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; r++) {
        const float* from = dy.data_ptr<float>() + r / places * channels;
        T* to = dx.data_ptr<T>() + r * channels;
        for (int64_t c = 0; c < channels; c += lanes) {
          storePart(to + c, loadPart(from + c, channels - c) / static_cast<float>(places), channels - c);
        }
      }
    });
  });
  return call.wrap(dx);
}

}  // namespace

void definePool(napi_env env, napi_value exports) {
  define(env, exports, {{"maxPool2d", entry<maxPool2d, generic::maxPool2d>}, {"maxPool2dGradient", entry<maxPool2dGradient, generic::maxPool2dGradient>},
                        {"globalAveragePool", entry<globalAveragePool, generic::globalAveragePool>}, {"globalAveragePoolGradient", entry<globalAveragePoolGradient, generic::globalAveragePoolGradient>}});
}
}  // namespace covey
