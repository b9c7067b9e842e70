// Loops over rows whose sums do not depend on the number of threads: rows are cut into fixed blocks, each block is summed in row order by
// one thread, and the blocks' sums are added in order.
#pragma once
#include <vector>

#include "context.h"
#include "vector.h"

namespace covey {
/// Rows per block. Part of the numerics: changing it changes the last bits of gradients.
constexpr int64_t blockRows = 64;

inline int64_t paddedWidth(int64_t width) { return (width + lanes - 1) / lanes * lanes; }

/**
 * Calls visit(firstRow, endRow, sums) per block, `sums` being `count` zeroed rows of paddedWidth(width) floats to add into, and returns the
 * totals, [count, width] each its own fp32 tensor.
 */
template <class F>
std::vector<Tensor> sumOverRows(int64_t rows, int64_t width, int64_t count, F&& visit) {
  const int64_t padded = paddedWidth(width);
  const int64_t blocks = (rows + blockRows - 1) / blockRows;
  const auto options = at::TensorOptions().dtype(at::kFloat);
  Tensor partial = at::zeros({std::max<int64_t>(blocks, 1), count, padded}, options);
  float* sums = partial.data_ptr<float>();
  at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block++) {
      visit(block * blockRows, std::min(rows, (block + 1) * blockRows), sums + block * count * padded);
    }
  });
  for (int64_t block = 1; block < blocks; block++) addVectors(sums, sums + block * count * padded, count * padded);
  std::vector<Tensor> totals;
  for (int64_t i = 0; i < count; i++) {
    Tensor total = at::empty({width}, options);
    std::memcpy(total.data_ptr<float>(), sums + i * padded, width * sizeof(float));
    totals.push_back(total);
  }
  return totals;
}

/// Runs body(begin, end) over rows in parallel; each row's result must depend on that row only.
template <class F>
void eachRow(int64_t rows, int64_t width, F&& body) {
  const int64_t grain = std::max<int64_t>(1, 8192 / std::max<int64_t>(width, 1));
  at::parallel_for(0, rows, grain, body);
}
}  // namespace covey
