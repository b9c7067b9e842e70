// What the optimiser kernels share: their first arguments, checked; sweeps that keep bf16 copies up to date; norms whose bits no thread changes.
#pragma once
#include <vector>

#include "context.h"
#include "vector.h"

namespace covey {
/// One parameter's memory. A kernel without the second slot leaves it null.
struct Slice {
  float* parameter;
  float* first;
  float* second;
  const float* gradient;
  /// bf16 copy to keep up to date, or null.
  c10::BFloat16* half;
  int64_t size;
};

/// Arguments 0 to 6 of every kernel: parameters, first slots | null, second slots | null, gradient, gradientScale, offsets, bf16 copies | null.
struct UpdateArguments {
  std::vector<Slice> slices;
  float gradientScale;
};
UpdateArguments updateArguments(Call& call, const char* kernel);
/// The numbers at `index`, one per parameter.
std::vector<double> perParameter(const Call& call, size_t index, const UpdateArguments& update, const char* kernel);
/// The Float64Array at `index`, `rows` numbers per parameter.
double* outputRows(const Call& call, size_t index, const UpdateArguments& update, size_t rows, const char* kernel);

/// Elements per cache-sized piece: the bf16 copy is made while the new parameters are still in the first-level cache.
constexpr int64_t pieceSize = 2048;

/// rule(slice, begin, end) over the whole parameter, then its bf16 copy.
template <class Rule>
void sweep(const Slice& s, const Rule& rule) {
  at::parallel_for(0, s.size, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; piece += pieceSize) {
      const int64_t until = std::min(end, piece + pieceSize);
      rule(s, piece, until);
      if (s.half == nullptr) continue;
      for (int64_t i = piece; i < until; i += lanes) storePart(s.half + i, loadPart(s.parameter + i, until - i), until - i);
    }
  });
}

/// Sum of value(i)² in fp64: blocks of 4,096 elements, each in eight interleaved sums, added in order.
template <class Value>
double sumOfSquaresOf(int64_t size, const Value& value) {
  constexpr int64_t block = 4096, width = 8;
  std::vector<double> partial((size + block - 1) / block);
  at::parallel_for(0, static_cast<int64_t>(partial.size()), 4, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at++) {
      const int64_t until = std::min(size, (at + 1) * block);
      double sums[width] = {};
      int64_t i = at * block;
      for (; i + width <= until; i += width) {
        for (int64_t lane = 0; lane < width; lane++) {
          const double x = value(i + lane);
          sums[lane] += x * x;
        }
      }
      for (int64_t lane = 0; i < until; i++, lane++) {
        const double x = value(i);
        sums[lane] += x * x;
      }
      for (const double sum : sums) partial[at] += sum;
    }
  });
  double total = 0;
  for (const double sum : partial) total += sum;
  return total;
}
}  // namespace covey
