// Matrix products by oneDNN's plain GEMMs, which the libtorch brings along that calls them through heavier ways: in fp32 they are ahead of
// OpenBLAS, most of all where caches are shared with others, and in bf16 of oneDNN's own matmul (docs/decisions/0006).
#pragma once
#include <type_traits>

#include "rows.h"

extern "C" {
// oneDNN's C API, row-major. Weak: pip's libtorch keeps its oneDNN to itself.
__attribute__((weak)) int dnnl_sgemm(char transposeA, char transposeB, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t strideA,
                                     const float* b, int64_t strideB, float beta, float* c, int64_t strideC);
__attribute__((weak)) int dnnl_gemm_bf16bf16f32(char transposeA, char transposeB, int64_t m, int64_t n, int64_t k, float alpha, const uint16_t* a,
                                                int64_t strideA, const uint16_t* b, int64_t strideB, float beta, float* c, int64_t strideC);
}

namespace covey {
/// Whether `multiply` may be called for factors of type T. With registers narrower than AVX-512's, ATen's products are the faster ones.
template <class T>
bool multiplies() {
#ifdef __AVX512F__
  if (std::is_same<T, float>::value) return dnnl_sgemm != nullptr;
#ifdef __AVX512BF16__
  return dnnl_gemm_bf16bf16f32 != nullptr;
#endif
#endif
  return false;
}

/// A matrix as it lies, a row every `stride` elements, to be read as it is or transposed.
template <class T>
struct Factor {
  const T* data;
  int64_t stride;
  bool transposed = false;
};

/// c [m, n] = a·b, summed in fp32. Inside a parallel region it keeps to its thread.
template <class T>
void multiply(int64_t m, int64_t n, int64_t k, Factor<T> a, Factor<T> b, float* c) {
  const auto flag = [](const Factor<T>& factor) { return factor.transposed ? 'T' : 'N'; };
  int status;
  if constexpr (std::is_same<T, float>::value) {
    status = dnnl_sgemm(flag(a), flag(b), m, n, k, 1.0f, a.data, a.stride, b.data, b.stride, 0.0f, c, n);
  } else {
    const auto bits = [](const c10::BFloat16* data) { return reinterpret_cast<const uint16_t*>(data); };
    status = dnnl_gemm_bf16bf16f32(flag(a), flag(b), m, n, k, 1.0f, bits(a.data), a.stride, bits(b.data), b.stride, 0.0f, c, n);
  }
  TORCH_CHECK(status == 0, "oneDNN refused a product of [", m, ", ", k, "] and [", k, ", ", n, "] (status ", status, ")");
}

/// Of fewer rows oneDNN has kernels whose sums have another order.
constexpr int64_t fewestRows = 64;

/**
 * Calls piece(begin, end) for the rows of a product, a piece a thread. oneDNN's own division may cut the summed axis; whole rows leave each
 * element the order of sums that one thread has.
 */
template <class F>
void inPieces(int64_t rows, F&& piece) {
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  const int64_t pieces = std::min<int64_t>(threads, rows / fewestRows);
  if (pieces <= 1) return piece(0, rows);
  at::parallel_for(0, pieces, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) piece(rows * i / pieces, rows * (i + 1) / pieces);
  });
}

/**
 * a [rows, k] · b [k, n], chunk by chunk of rows: finish(row, sums) is called for each row while its sums are in the cache. They are at
 * `sums` [rows, n] and stay there, or, where that is null, in memory of the thread's own.
 */
template <class T, class Finish>
void productOfRows(int64_t rows, int64_t n, int64_t k, const T* a, Factor<T> b, float* sums, Finish&& finish) {
  constexpr int64_t chunkBytes = 4 << 20;  // a larger chunk leaves the cache, a smaller one packs b too often
  inPieces(rows, [&](int64_t begin, int64_t end) {
    const int64_t most = std::max<int64_t>(fewestRows, chunkBytes / sizeof(float) / n);
    const int64_t chunks = std::max<int64_t>(1, (end - begin + most - 1) / most);
    const Tensor own = sums == nullptr ? at::empty({(end - begin + chunks - 1) / chunks, n}, at::kFloat) : Tensor();
    for (int64_t i = 0; i < chunks; i++) {
      const int64_t first = begin + (end - begin) * i / chunks;
      const int64_t count = begin + (end - begin) * (i + 1) / chunks - first;
      float* chunk = sums == nullptr ? own.data_ptr<float>() : sums + first * n;
      multiply(count, n, k, Factor<T>{a + first * k, k}, b, chunk);
      eachRow(count, n, [&](int64_t from, int64_t until) {
        for (int64_t row = from; row < until; row++) finish(first + row, chunk + row * n);
      });
    }
  });
}
}  // namespace covey
