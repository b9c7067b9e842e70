// Products of a few query rows with many keys, and of what becomes of them with the keys again, in tiles of our own: a GEMM library packs the keys
// anew for each product, which with a hundred rows costs a good part of it. Here the queries are packed once; the first product reads the keys as they
// lie, the second copies small panels of them.
// Shapes: R query rows, N keys, D width.
#pragma once
#include <vector>

#include "context.h"
#include "rows.h"
#include "small_gemm.h"

namespace covey {
/// Queries side by side: four vectors, of which the small GEMM keeps four rows in registers.
constexpr int64_t stripRows = 4 * lanes;
/// Keys of a chunk, which one thread multiplies and visits while it is in the first-level cache, and depth of a panel of either product.
constexpr int64_t chunkKeys = 64;
/// Keys and queries of a tile. These four order the sums: they are part of the numerics.
constexpr int64_t tileKeys = 512;
constexpr int64_t tileRows = 256;

/// Similarities of `keys` keys from `key` on with a strip of queries from `row` on. The strip is padded with zeros to whole vectors.
struct Chunk {
  float* similarities;
  int64_t key, keys, row, width;
  Floats at(int64_t k, int64_t r) const { return load(similarities + k * width + r); }
  void set(int64_t k, int64_t r, Floats value) const { store(similarities + k * width + r, value); }
};

class SimilarityTiles {
 public:
  SimilarityTiles(const Tensor& query, const Tensor& keys, double factor)
      : query_RD(query.contiguous()), keys_ND(keys.contiguous()), scale(static_cast<float>(factor)) {
    TORCH_CHECK(query_RD.dim() == 2 && keys_ND.dim() == 2 && query_RD.size(1) == keys_ND.size(1), "similarity: rows of one width are needed");
    TORCH_CHECK(query_RD.scalar_type() == at::kFloat && keys_ND.scalar_type() == at::kFloat, "similarity: float32 is needed");
    const int64_t height = std::min(tileRows, paddedRows());
    packed = at::empty({height * width()}, at::kFloat);
    tile = at::empty({height * std::min(tileKeys, count())}, at::kFloat);
  }

  int64_t rows() const { return query_RD.size(0); }
  int64_t paddedRows() const { return paddedWidth(rows()); }

  /**
   * Calls visit(chunk, partial) for each chunk of similarities scale·query·key, from any thread: it may replace them, and leaves SUMS sums over its keys
   * for each of its rows, partial[sum·stripRows + r]. Then merge(partial, row) per vector of rows, in order of the keys.
   * @returns with `multiply`, Σ_j x_j·key_j of what was left in place of the similarities, [R, D]
   */
  template <int SUMS, class Visit, class Merge>
  Tensor each(Visit&& visit, Merge&& merge, bool multiply = false) {
    const int64_t padded = paddedWidth(width());
    const Tensor sum = multiply ? at::zeros({paddedRows(), padded}, at::kFloat) : Tensor();
    constexpr int64_t perChunk = SUMS * stripRows;
    std::vector<float> partial(tileRows / stripRows * (tileKeys / chunkKeys) * perChunk);
    for (row = 0; row < rows(); row += tileRows) {
      height = std::min(tileRows, paddedRows() - row);
      pack();
      for (key = 0; key < count(); key += tileKeys) {
        keysHere = std::min(tileKeys, count() - key);
        const int64_t chunks = (keysHere + chunkKeys - 1) / chunkKeys;
        at::parallel_for(0, strips() * chunks, 1, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; i++) visit(similarities(i % strips(), i / strips()), partial.data() + i * perChunk);
        });
        for (int64_t i = 0; i < strips() * chunks; i++) {
          const int64_t strip = i % strips();
          for (int64_t r = 0; r < stripWidth(strip); r += lanes) merge(partial.data() + i * perChunk + r, row + strip * stripRows + r);
        }
        if (multiply) multiplyKeys(sum.data_ptr<float>(), padded);
      }
    }
    return multiply ? sum.narrow(0, 0, rows()).narrow(1, 0, width()).contiguous() : sum;
  }

 private:
  Tensor query_RD, keys_ND;
  float scale;
  Tensor packed;  // a strip after the other, each [D][its rows]
  Tensor tile;    // a strip after the other, each [keys][its rows]
  int64_t row = 0, height = 0, key = 0, keysHere = 0;

  int64_t width() const { return query_RD.size(1); }
  int64_t count() const { return keys_ND.size(0); }
  int64_t strips() const { return (height + stripRows - 1) / stripRows; }
  int64_t stripWidth(int64_t strip) const { return std::min(stripRows, height - strip * stripRows); }
  const uint32_t* keysFrom(int64_t first) const { return reinterpret_cast<const uint32_t*>(keys_ND.data_ptr<float>() + first * width()); }
  float* stripOf(const Tensor& tensor, int64_t strip, int64_t depth) const { return tensor.data_ptr<float>() + strip * stripRows * depth; }

  void pack() {
    for (int64_t strip = 0; strip < strips(); strip++) {
      const int64_t first = row + strip * stripRows, across = stripWidth(strip);
      float* panel = stripOf(packed, strip, width());
      transposeUnits(reinterpret_cast<const uint32_t*>(query_RD.data_ptr<float>() + first * width()), width(), std::min(across, rows() - first), width(),
                     reinterpret_cast<uint32_t*>(panel), across);
      for (int64_t i = 0; i < width() * across; i++) panel[i] *= scale;
    }
  }

  /// keys × queries of one chunk.
  Chunk similarities(int64_t strip, int64_t index) const {
    const int64_t across = stripWidth(strip), first = index * chunkKeys;
    float* product = stripOf(tile, strip, keysHere) + first * across;
    const Chunk chunk{product, key + first, std::min(chunkKeys, keysHere - first), row + strip * stripRows, across};
    const auto* panel = reinterpret_cast<const uint32_t*>(stripOf(packed, strip, width()));
    for (int64_t d = 0; d < width(); d += chunkKeys) {
      smallGemm<Float32Units>({keysFrom(chunk.key) + d, width(), 1}, panel + d * across, across, {product, across, d > 0}, chunk.keys, across,
                              std::min(chunkKeys, width() - d));
    }
    return chunk;
  }

  /// sum += tile · keys, by columns of the keys. Their panels are copied: in rows of 2 KiB they would share a few lines of the first-level cache.
  void multiplyKeys(float* sum, int64_t padded) const {
    const int64_t columns = (padded + stripRows - 1) / stripRows;
    // A panel serves all strips where the columns alone keep every thread busy.
    const int64_t groups = columns % at::get_num_threads() == 0 ? 1 : strips(), items = columns * groups;
    at::parallel_for(0, items, 1, [&](int64_t begin, int64_t end) {
      alignas(64) uint32_t panel[chunkKeys * stripRows];
      for (int64_t i = begin; i < end; i++) {
        const int64_t column = i / groups * stripRows, group = i % groups, across = std::min(stripRows, padded - column);
        for (int64_t k = 0; k < keysHere; k += chunkKeys) {
          const int64_t depth = std::min(chunkKeys, keysHere - k);
          prefetchNext(i * keysHere + k, i * keysHere + k + depth, items * keysHere);
          copyPanel(key + k, column, depth, across, panel);
          for (int64_t strip = strips() * group / groups; strip < strips() * (group + 1) / groups; strip++) {
            const int64_t high = stripWidth(strip);
            const auto* left = reinterpret_cast<const uint32_t*>(stripOf(tile, strip, keysHere)) + k * high;
            smallGemm<Float32Units>({left, 1, high}, panel, across, {sum + (row + strip * stripRows) * padded + column, padded, true}, high, across,
                                    depth);
          }
        }
      }
    });
  }

  /// From share `begin` to `end` of `all` of the next tile's keys: they come from memory while this tile is multiplied, into the cache of the core
  /// that will need them, because similarities() is shared out in the same way.
  void prefetchNext(int64_t begin, int64_t end, int64_t all) const {
    const int64_t first = key + keysHere, next = std::min(tileKeys, count() - first);
    const float* keys = keys_ND.data_ptr<float>() + first * width();
    for (int64_t i = next * begin / all * width(); i < next * end / all * width(); i += lanes) __builtin_prefetch(keys + i, 0, 2);
  }

  void copyPanel(int64_t first, int64_t column, int64_t depth, int64_t across, uint32_t* panel) const {
    const float* from = keys_ND.data_ptr<float>() + first * width() + column;
    const int64_t whole = std::min(across, width() - column) / lanes * lanes;
    for (int64_t k = 0; k < depth; k++, from += width(), panel += across) {
      for (int64_t c = 0; c < whole; c += lanes) store(reinterpret_cast<float*>(panel + c), load(from + c));
      if (whole < across) store(reinterpret_cast<float*>(panel + whole), loadPart(from + whole, width() - column - whole));
    }
  }
};
}  // namespace covey
