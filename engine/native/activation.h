// GELU in its exact and its sigmoid form: value and slope at a vector of points, and over whole tensors.
#pragma once
#include "rows.h"

namespace covey {
/// Value and derivative of an activation at a vector of points.
struct Curve {
  Floats value;
  Floats slope;
};

/// x·Φ(x). Φ by Abramowitz & Stegun 7.1.26 (absolute error 1.5e-7); its density shares the exponential.
struct Gelu {
  static Curve at(Floats x) {
    const Floats z = x * 0.70710678118654752f;
    const Floats magnitude = select(z < 0.0f, -z, z);
    const Floats gauss = exponential(-z * z);
    const Floats t = reciprocal(1.0f + 0.3275911f * magnitude);
    Floats p = broadcast(1.061405429f);
    p = p * t - 1.453152027f;
    p = p * t + 1.421413741f;
    p = p * t - 0.284496736f;
    p = p * t + 0.254829592f;
    const Floats tail = 0.5f * p * t * gauss;  // Φ(−|x|)
    const Floats phi = select(x < 0.0f, tail, 1.0f - tail);
    return {x * phi, phi + x * gauss * 0.39894228040143268f};
  }
};

/// x·σ(1.702·x)
struct QuickGelu {
  static Curve at(Floats x) {
    const Floats s = reciprocal(1.0f + exponential(-1.702f * x));
    return {x * s, s + 1.702f * x * s * (1.0f - s)};
  }
};

/// y, and the activation's slope at x where it is asked for (else undefined): backward is then one product per element.
template <class Activation>
std::pair<Tensor, Tensor> activated(const Tensor& x, bool withSlope) {
  const Tensor y = at::empty_like(x);
  const Tensor slope = withSlope ? at::empty_like(x) : Tensor();
  byStorage(x, [&](auto zero) {
    using T = decltype(zero);
    const T* from = x.data_ptr<T>();
    T* to = y.data_ptr<T>();
    T* slopes = withSlope ? slope.data_ptr<T>() : nullptr;
    at::parallel_for(0, x.numel(), 16384, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += lanes) {
        const Curve curve = Activation::at(loadPart(from + i, end - i));
        storePart(to + i, curve.value, end - i);
        if (withSlope) storePart(slopes + i, curve.slope, end - i);
      }
    });
  });
  return {y, slope};
}

/// dy ⊙ slope, of one type
inline Tensor timesSlope(const Tensor& dy, const Tensor& slope) {
  const Tensor dx = at::empty_like(slope);
  byStorage(slope, [&](auto zero) {
    using T = decltype(zero);
    const T* upstream = dy.data_ptr<T>();
    const T* slopes = slope.data_ptr<T>();
    T* to = dx.data_ptr<T>();
    at::parallel_for(0, slope.numel(), 16384, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += lanes) storePart(to + i, loadPart(upstream + i, end - i) * loadPart(slopes + i, end - i), end - i);
    });
  });
  return dx;
}
}  // namespace covey
