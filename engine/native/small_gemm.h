// C = A·B for matrices that fit the first-level caches, as attention over a few dozen tokens needs them: one thread, fp32 sums in order of k.
// Operands are made of 32-bit units: one float, or two bf16 neighbours along k (what one dot-product instruction takes), so that both
// precisions share one code. B is [k in units][columns], its columns padded to whole vectors.
#pragma once
#include <algorithm>

#include "vector.h"

namespace covey {
typedef Words UnalignedWords __attribute__((aligned(4)));
inline Words loadUnits(const uint32_t* from) { return *reinterpret_cast<const UnalignedWords*>(from); }
/// Keeps the compiler from reading the operand from memory again at each use.
inline Words inRegister(Words value) {
#ifdef __AVX512F__
  asm("" : "+v"(value));
#endif
  return value;
}
inline void storeUnits(uint32_t* to, Words value) { *reinterpret_cast<UnalignedWords*>(to) = value; }

/// bf16 bits of floats in the upper halves of 32-bit lanes, rounded to nearest even; NaN stays NaN.
inline Words roundedHalves(Floats value) {
  const Words bits = reinterpret_cast<Words>(value);
  const Words rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
  const Words isNan = reinterpret_cast<Words>(value != value);
  return ((isNan & 0x7fc00000u) | (~isNan & rounded)) & 0xffff0000u;
}

struct Float32Units {
  using Element = float;
  static constexpr int64_t perUnit = 1;
  static Floats multiplyAdd(Floats sum, uint32_t a, Words b) {
    float left;
    std::memcpy(&left, &a, sizeof left);
    return sum + left * reinterpret_cast<Floats>(b);
  }
  /// One row of units from consecutive rows of a matrix: with one element per unit, the first.
  static Words pair(Floats first, Floats) { return reinterpret_cast<Words>(first); }
  static Words loadPair(const float* first, const float*, int64_t count) { return reinterpret_cast<Words>(loadPart(first, count)); }
};

struct BFloat16Units {
  using Element = c10::BFloat16;
  static constexpr int64_t perUnit = 2;
  /// Two consecutive rows side by side, the first in the lower halves.
  static Words pair(Floats first, Floats second) {
#ifdef __AVX512BF16__
    const __m512i halves = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(reinterpret_cast<__m512>(second), reinterpret_cast<__m512>(first)));
    const __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(halves));
    const __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(halves, 1));
    return reinterpret_cast<Words>(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
#else
    return (roundedHalves(first) >> 16) | roundedHalves(second);
#endif
  }
  static Words loadPair(const c10::BFloat16* first, const c10::BFloat16* second, int64_t count) {
    const Words low = reinterpret_cast<Words>(loadPart(first, count)) >> 16;
    return second == nullptr ? low : low | reinterpret_cast<Words>(loadPart(second, count));
  }
  static Floats multiplyAdd(Floats sum, uint32_t a, Words b) {
#ifdef __AVX512BF16__
    const __m512i left = _mm512_set1_epi32(static_cast<int32_t>(a));
    return reinterpret_cast<Floats>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(left), reinterpret_cast<__m512bh>(b)));
#else
    const Words left = a - Words{};
    sum += reinterpret_cast<Floats>(left << 16) * reinterpret_cast<Floats>(b << 16);
    return sum + reinterpret_cast<Floats>(left & 0xffff0000u) * reinterpret_cast<Floats>(b & 0xffff0000u);
#endif
  }
};

/// A in units, read as data[i·rowStride + k·unitStride], so it may be a transpose.
struct Strided {
  const uint32_t* data;
  int64_t rowStride;
  int64_t unitStride;
  Strided from(int64_t row) const { return {data + row * rowStride, rowStride, unitStride}; }
};
/// C, one float per column. `add` adds to what is there.
struct Result {
  float* data;
  int64_t stride;
  bool add;
};

template <class Units, int ROWS, int VECTORS>
inline void gemmTile(Strided a, const uint32_t* b, int64_t bStride, Result c, int64_t depth) {
  Floats sum[ROWS][VECTORS];
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) sum[r][v] = c.add ? load(c.data + r * c.stride + v * lanes) : Floats{};
  }
  for (int64_t k = 0; k < depth; k++) {
    Words right[VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) right[v] = inRegister(loadUnits(b + k * bStride + v * lanes));
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      const uint32_t left = a.data[r * a.rowStride + k * a.unitStride];
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) sum[r][v] = Units::multiplyAdd(sum[r][v], left, right[v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) store(c.data + r * c.stride + v * lanes, sum[r][v]);
  }
}

template <class Units, int VECTORS>
__attribute__((noinline)) void gemmColumns(Strided a, const uint32_t* b, int64_t bStride, Result c, int64_t rows, int64_t depth) {
  auto rowsOf = [&c](int64_t row) { return Result{c.data + row * c.stride, c.stride, c.add}; };
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) gemmTile<Units, 4, VECTORS>(a.from(i), b, bStride, rowsOf(i), depth);
  switch (rows - i) {
    case 3: return gemmTile<Units, 3, VECTORS>(a.from(i), b, bStride, rowsOf(i), depth);
    case 2: return gemmTile<Units, 2, VECTORS>(a.from(i), b, bStride, rowsOf(i), depth);
    case 1: return gemmTile<Units, 1, VECTORS>(a.from(i), b, bStride, rowsOf(i), depth);
    default: return;
  }
}

/// As many vectors of four rows as the registers hold: 32 with AVX-512, else 16. Columns are cut evenly, so that no narrow strip is left over.
constexpr int64_t stripVectors = lanes == 16 ? 5 : 2;

/// c[rows × columns] = a[rows × depth units] · b[depth units × columns]; columns, bStride and c.stride are multiples of a vector's lanes.
template <class Units>
void smallGemm(Strided a, const uint32_t* b, int64_t bStride, Result c, int64_t rows, int64_t columns, int64_t depth) {
  const int64_t vectors = columns / lanes, strips = (vectors + stripVectors - 1) / stripVectors;
  for (int64_t strip = 0, from = 0; strip < strips; strip++) {
    const int64_t until = vectors * (strip + 1) / strips;
    const uint32_t* right = b + from * lanes;
    const Result part{c.data + from * lanes, c.stride, c.add};
    switch (until - from) {
      case 5: gemmColumns<Units, 5>(a, right, bStride, part, rows, depth); break;
      case 4: gemmColumns<Units, 4>(a, right, bStride, part, rows, depth); break;
      case 3: gemmColumns<Units, 3>(a, right, bStride, part, rows, depth); break;
      case 2: gemmColumns<Units, 2>(a, right, bStride, part, rows, depth); break;
      case 1: gemmColumns<Units, 1>(a, right, bStride, part, rows, depth); break;
    }
    from = until;
  }
}

/// One stage of the transpose of a square block, a vector on each side: swaps the off-diagonal blocks of `distance` lanes (Eklundh 1972).
template <int distance>
inline void transposeStage(Words* rows) {
  Words low, high;
#pragma GCC unroll 16
  for (int lane = 0; lane < lanes; lane++) {
    low[lane] = lane & distance ? lanes + lane - distance : lane;
    high[lane] = lane & distance ? lanes + lane : lane + distance;
  }
#pragma GCC unroll 16
  for (int i = 0; i < lanes; i++) {
    if (i & distance) continue;
    const Words a = rows[i], b = rows[i + distance];
    rows[i] = __builtin_shuffle(a, b, low);
    rows[i + distance] = __builtin_shuffle(a, b, high);
  }
}

/// to[column][row] = from[row][column] in units, rows padded with zeros to whole vectors.
inline void transposeUnits(const uint32_t* from, int64_t fromStride, int64_t rows, int64_t columns, uint32_t* to, int64_t toStride) {
  for (int64_t row = 0; row < rows; row += lanes) {
    const int64_t height = std::min(lanes, rows - row);
    for (int64_t column = 0; column < columns; column += lanes) {
      const int64_t width = std::min(lanes, columns - column);
      Words block[lanes] = {};
      for (int64_t i = 0; i < height; i++) {
        const uint32_t* source = from + (row + i) * fromStride + column;
        if (width == lanes) block[i] = loadUnits(source);
        else std::memcpy(&block[i], source, width * sizeof(uint32_t));
      }
      transposeStage<1>(block);
      transposeStage<2>(block);
      if constexpr (lanes > 4) transposeStage<4>(block);
      if constexpr (lanes > 8) transposeStage<8>(block);
      for (int64_t i = 0; i < width; i++) storeUnits(to + (column + i) * toStride + row, block[i]);
    }
  }
}
}  // namespace covey
