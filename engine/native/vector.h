// A register of floats at a time through the compiler's vector extensions: sixteen with AVX-512, eight with AVX, else
// four. Types wider than the registers are no way out: GCC 12 takes them apart through memory, and an exponential costs ten times as much.
#pragma once
#include <c10/util/BFloat16.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>

namespace covey {
#ifdef __AVX512F__
constexpr int64_t lanes = 16;
#elif defined(__AVX__)
constexpr int64_t lanes = 8;
#else
constexpr int64_t lanes = 4;
#endif
typedef float Floats __attribute__((vector_size(4 * lanes)));
typedef int32_t Ints __attribute__((vector_size(4 * lanes)));
typedef uint32_t Words __attribute__((vector_size(4 * lanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * lanes)));
typedef float UnalignedFloats __attribute__((vector_size(4 * lanes), aligned(4)));
typedef uint16_t UnalignedHalves __attribute__((vector_size(2 * lanes), aligned(2)));

inline Floats broadcast(float value) { return value - Floats{}; }

inline Floats load(const float* from) { return *reinterpret_cast<const UnalignedFloats*>(from); }
inline Floats load(const c10::BFloat16* from) {
  const Halves halves = *reinterpret_cast<const UnalignedHalves*>(from);
  return reinterpret_cast<Floats>(__builtin_convertvector(halves, Words) << 16);
}
inline void store(float* to, Floats value) { *reinterpret_cast<UnalignedFloats*>(to) = value; }
/// Round to nearest even; NaN stays NaN.
inline void store(c10::BFloat16* to, Floats value) {
#ifdef __AVX512BF16__
  const __m256bh halves = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(value));
  std::memcpy(to, &halves, sizeof halves);
#else
  const Words bits = reinterpret_cast<Words>(value);
  const Words rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Words isNan = reinterpret_cast<Words>(value != value);
  const Words chosen = (isNan & 0x7fc0u) | (~isNan & rounded);
  *reinterpret_cast<UnalignedHalves*>(to) = __builtin_convertvector(chosen, Halves);
#endif
}
/// The first `count` lanes; the rest is zero.
template <class T>
inline Floats loadPart(const T* from, int64_t count) {
  if (count >= lanes) return load(from);
  alignas(64) T padded[lanes] = {};
  std::memcpy(padded, from, count * sizeof(T));
  return load(padded);
}
template <class T>
inline void storePart(T* to, Floats value, int64_t count) {
  if (count >= lanes) return store(to, value);
  alignas(64) T padded[lanes];
  store(padded, value);
  std::memcpy(to, padded, count * sizeof(T));
}

/// Halves are added, then their halves: the same order with and without the instruction.
inline float sumOf(Floats value) {
#ifdef __AVX512F__
  return _mm512_reduce_add_ps(reinterpret_cast<__m512>(value));
#endif
  for (int64_t width = lanes / 2; width > 0; width /= 2) {
    for (int64_t i = 0; i < width; i++) value[i] += value[i + width];
  }
  return value[0];
}
inline float maximumOf(Floats value) {
#ifdef __AVX512F__
  return _mm512_reduce_max_ps(reinterpret_cast<__m512>(value));
#endif
  float highest = value[0];
  for (int i = 1; i < lanes; i++) highest = value[i] > highest ? value[i] : highest;
  return highest;
}
inline Floats select(Ints mask, Floats yes, Floats no) {
  return mask ? yes : no;
}
inline Floats maximum(Floats a, Floats b) { return select(a > b, a, b); }
inline Floats minimum(Floats a, Floats b) { return select(a < b, a, b); }

/// 1/x, exact to an ulp or two; x is finite and not zero.
inline Floats reciprocal(Floats x) {
#ifdef __AVX512F__
  const Floats guess = reinterpret_cast<Floats>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
  return guess * (2.0f - x * guess);  // one step of Newton's doubles the fourteen bits
#else
  return 1.0f / x;
#endif
}

/// p·2^whole
inline Floats scaleByPower(Floats p, Floats whole) {
#ifdef __AVX512F__
  return reinterpret_cast<Floats>(_mm512_scalef_ps(reinterpret_cast<__m512>(p), reinterpret_cast<__m512>(whole)));
#else
  const Ints exponent = (__builtin_convertvector(whole, Ints) + 127) << 23;
  return p * reinterpret_cast<Floats>(exponent);
#endif
}

/// e^x with about one unit in the last place for x ≤ 88 (larger is taken as 88); below −87 it is at most e^−87. NaN stays NaN.
inline Floats exponential(Floats x) {
  // The constants come first: a comparison with NaN then chooses x.
  const Floats clamped = minimum(broadcast(88.0f), maximum(broadcast(-87.0f), x));
  constexpr float magic = 12582912.0f;  // 1.5·2^23: adding it rounds to a whole number
  const Floats shifted = clamped * 1.44269504088896341f + magic;
  const Floats whole = shifted - magic;
  Floats r = clamped - whole * 0.693359375f;
  r = r + whole * 2.12194440e-4f;
  Floats p = broadcast(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return scaleByPower(p, whole);
}

/// target += source
inline void addVectors(float* target, const float* source, int64_t length) {
  int64_t i = 0;
  for (; i + lanes <= length; i += lanes) store(target + i, load(target + i) + load(source + i));
  for (; i < length; i++) target[i] += source[i];
}
}  // namespace covey
