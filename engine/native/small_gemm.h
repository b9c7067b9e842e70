// C = A·B for matrices that fit the first-level cache, as attention over a few dozen tokens needs them: fp32, one thread, B and C padded to
// whole vectors. Every element is summed over k in order.
#pragma once
#include <algorithm>

#include "vector.h"

namespace covey {

/// A is read as a[i·rowStride + k·columnStride], so it may be a transpose.
struct Strided {
  const float* data;
  int64_t rowStride;
  int64_t columnStride;
};

template <int ROWS, int VECTORS>
inline void gemmTile(Strided a, const float* b, int64_t bStride, float* c, int64_t cStride, int64_t depth) {
  Floats sum[ROWS][VECTORS] = {};
  for (int64_t k = 0; k < depth; k++) {
    Floats right[VECTORS];
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) right[v] = load(b + k * bStride + v * lanes);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
      const Floats left = broadcast(a.data[r * a.rowStride + k * a.columnStride]);
#pragma GCC unroll 8
      for (int v = 0; v < VECTORS; v++) sum[r][v] += left * right[v];
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 8
    for (int v = 0; v < VECTORS; v++) store(c + r * cStride + v * lanes, sum[r][v]);
  }
}

template <int VECTORS>
inline void gemmColumns(Strided a, const float* b, int64_t bStride, float* c, int64_t cStride, int64_t rows, int64_t depth) {
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    gemmTile<4, VECTORS>({a.data + i * a.rowStride, a.rowStride, a.columnStride}, b, bStride, c + i * cStride, cStride, depth);
  }
  const Strided rest{a.data + i * a.rowStride, a.rowStride, a.columnStride};
  switch (rows - i) {
    case 3: return gemmTile<3, VECTORS>(rest, b, bStride, c + i * cStride, cStride, depth);
    case 2: return gemmTile<2, VECTORS>(rest, b, bStride, c + i * cStride, cStride, depth);
    case 1: return gemmTile<1, VECTORS>(rest, b, bStride, c + i * cStride, cStride, depth);
    default: return;
  }
}

/// c[rows × columns] = a[rows × depth] · b[depth × columns]; columns, bStride and cStride are multiples of sixteen.
inline void smallGemm(Strided a, const float* b, int64_t bStride, float* c, int64_t cStride, int64_t rows, int64_t columns, int64_t depth) {
  int64_t j = 0;
  for (; j + 4 * lanes <= columns; j += 4 * lanes) gemmColumns<4>(a, b + j, bStride, c + j, cStride, rows, depth);
  switch ((columns - j) / lanes) {
    case 3: return gemmColumns<3>(a, b + j, bStride, c + j, cStride, rows, depth);
    case 2: return gemmColumns<2>(a, b + j, bStride, c + j, cStride, rows, depth);
    case 1: return gemmColumns<1>(a, b + j, bStride, c + j, cStride, rows, depth);
    default: return;
  }
}
}  // namespace covey
