// Self-attention for short sequences: each (sample, head) is a handful of small products in cache, on bf16 or fp32 operands with fp32 sums.
// Queries are taken in blocks, so that scratch memory grows with T and not with T², and causal blocks skip the keys they cannot see.
// Backward recomputes the probabilities from the saved log-sum-exps (Dao et al. 2022, §3.1) instead of keeping T×T numbers per head.
#include <cmath>
#include <limits>

#include "generic.h"
#include "rows.h"
#include "small_gemm.h"

namespace covey {
namespace {

/// Queries per block at most: whole short sequences are one block.
constexpr int64_t blockQueriesMax = 128;

struct Shape {
  int64_t batch, tokens, heads, headWidth;
  bool causal;
  int64_t width() const { return heads * headWidth; }
  int64_t tokensPadded() const { return paddedWidth(tokens); }
  int64_t headPadded() const { return paddedWidth(headWidth); }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(headWidth)); }
  /// Queries per block: part of the numerics of backward, which sums over blocks in order. Even.
  int64_t blockQueries() const { return causal ? 32 : tokens <= blockQueriesMax ? tokens + tokens % 2 : 64; }
  /// Keys that some query before `end` sees.
  int64_t keysBefore(int64_t end) const { return causal ? end : tokens; }
  int64_t visible(int64_t query) const { return causal ? query + 1 : tokens; }
};

/// Memory of one thread, handed out from lines of the cache on; zeroed once.
class Arena {
 public:
  uint32_t* units(int64_t rows, int64_t stride) {
    constexpr size_t line = 64;
    parts.emplace_back(rows * stride + line / sizeof(uint32_t), 0u);
    const auto address = reinterpret_cast<uintptr_t>(parts.back().data());
    return reinterpret_cast<uint32_t*>((address + line - 1) / line * line);
  }
  float* floats(int64_t rows, int64_t stride) { return reinterpret_cast<float*>(units(rows, stride)); }

 private:
  std::vector<std::vector<uint32_t>> parts;
};

/// Where one head's rows lie in a packed tensor.
template <class T>
struct HeadRows {
  const T* data;
  int64_t stride;
  const T* row(int64_t index) const { return data + index * stride; }
};

template <class Units>
Strided asLeft(HeadRows<typename Units::Element> rows, int64_t first) {
  return {reinterpret_cast<const uint32_t*>(rows.row(first)), rows.stride / Units::perUnit, 1};
}

template <class Units>
constexpr int64_t unitsFor(int64_t count) { return (count + Units::perUnit - 1) / Units::perUnit; }

/// Rows [first, end) as the right side of a product that sums over rows: [units][width padded].
template <class Units>
void packRows(HeadRows<typename Units::Element> rows, int64_t first, int64_t end, int64_t width, uint32_t* to) {
  for (int64_t row = first; row < end; row += Units::perUnit) {
    const auto* next = row + 1 < end ? rows.row(row + 1) : nullptr;
    for (int64_t i = 0; i < width; i += lanes, to += lanes) storeUnits(to, Units::loadPair(rows.row(row) + i, next == nullptr ? next : next + i, width - i));
  }
}

/// All rows transposed: the right side of a product that sums over the head's width: [units of width][tokens padded].
template <class Units>
void packColumns(HeadRows<typename Units::Element> rows, const Shape& shape, uint32_t* to) {
  const Strided left = asLeft<Units>(rows, 0);
  transposeUnits(left.data, left.rowStride, shape.tokens, shape.headWidth / Units::perUnit, to, shape.tokensPadded());
}

template <class T>
void storeRows(const float* from, int64_t fromStride, int64_t count, int64_t width, T* to, int64_t toStride) {
  for (int64_t row = 0; row < count; row++) {
    for (int64_t i = 0; i < width; i += lanes) storePart(to + row * toStride + i, load(from + row * fromStride + i), width - i);
  }
}

/// Lane numbers below `count` keep their value, the others become `other`.
inline Floats firstLanes(Floats value, int64_t count, Floats other) {
  if (count >= lanes) return value;
  Ints index;
  for (int lane = 0; lane < lanes; lane++) index[lane] = lane;
  return select(index < static_cast<int32_t>(std::max<int64_t>(0, count)), value, other);
}

struct SoftmaxRow {
  float sum;
  float logSumExp;
};

/// e^(scale·(score − highest)) over a row's visible tokens, zero up to `padded`; `to` may be the row itself.
template <class T>
SoftmaxRow exponentials(const float* row, float scale, int64_t visible, int64_t padded, T* to) {
  const Floats lowest = broadcast(-std::numeric_limits<float>::infinity());
  Floats highest = lowest;
  for (int64_t j = 0; j < visible; j += lanes) highest = maximum(highest, firstLanes(load(row + j), visible - j, lowest));
  const float top = maximumOf(highest) * scale;
  Floats sum{};
  for (int64_t j = 0; j < padded; j += lanes) {
    const Floats weight = j < visible ? firstLanes(exponential(load(row + j) * scale - top), visible - j, Floats{}) : Floats{};
    store(to + j, weight);
    sum += weight;
  }
  const float total = sumOf(sum);
  return {total, top + std::log(total)};
}

Shape shapeOf(const Tensor& qkv, int64_t heads, bool causal) {
  requireFloating(qkv, "attention");
  TORCH_CHECK(qkv.dim() == 3 && qkv.size(2) % (3 * heads) == 0, "attention: expected [B, T, 3·D] with D a multiple of ", heads, " heads, got ",
              qkv.sizes());
  return {qkv.size(0), qkv.size(1), heads, qkv.size(2) / 3 / heads, causal};
}

/// Calls f(Units) for the tensor's storage.
template <class F>
void byUnits(const Tensor& tensor, F&& f) {
  if (tensor.scalar_type() == at::kBFloat16) f(BFloat16Units{});
  else f(Float32Units{});
}

/// Pairs of bf16 need an even head width; others are computed in fp32.
bool needsFloats(const Tensor& qkv, const Shape& shape) { return qkv.scalar_type() == at::kBFloat16 && shape.headWidth % 2 != 0; }

/// One thread's forward over heads.
template <class Units>
class Forward {
  using T = typename Units::Element;
  const Shape shape;
  Arena arena;
  uint32_t *keysT, *values;
  float *scores, *out;
  T* weights;

 public:
  explicit Forward(const Shape& s) : shape(s) {
    const int64_t block = s.blockQueries(), padded = s.tokensPadded();
    keysT = arena.units(unitsFor<Units>(s.headWidth) + lanes, padded);
    values = arena.units(unitsFor<Units>(s.tokens), s.headPadded());
    scores = arena.floats(block, padded);
    // fp32 weights take the scores' place.
    weights = std::is_same<T, float>::value ? reinterpret_cast<T*>(scores) : reinterpret_cast<T*>(arena.units(block, padded / Units::perUnit));
    out = arena.floats(block, s.headPadded());
  }

  /// q, k, v of one head -> its rows of the output and their log-sum-exps.
  void run(HeadRows<T> q, HeadRows<T> k, HeadRows<T> v, T* output, float* logSumExp) {
    const int64_t padded = shape.tokensPadded();
    packColumns<Units>(k, shape, keysT);
    packRows<Units>(v, 0, shape.tokens, shape.headWidth, values);
    for (int64_t first = 0; first < shape.tokens; first += shape.blockQueries()) {
      const int64_t end = std::min(shape.tokens, first + shape.blockQueries()), keys = shape.keysBefore(end);
      smallGemm<Units>(asLeft<Units>(q, first), keysT, padded, {scores, padded, false}, end - first, paddedWidth(keys),
                       shape.headWidth / Units::perUnit);
      float inverses[blockQueriesMax];
      for (int64_t t = first; t < end; t++) {
        const int64_t row = (t - first) * padded;
        const SoftmaxRow softmax = exponentials(scores + row, shape.scale(), shape.visible(t), paddedWidth(keys), weights + row);
        logSumExp[t] = softmax.logSumExp;
        inverses[t - first] = 1.0f / softmax.sum;
      }
      smallGemm<Units>({reinterpret_cast<const uint32_t*>(weights), padded / Units::perUnit, 1}, values, shape.headPadded(),
                       {out, shape.headPadded(), false}, end - first, shape.headPadded(), unitsFor<Units>(keys));
      for (int64_t t = first; t < end; t++) {
        float* row = out + (t - first) * shape.headPadded();
        for (int64_t i = 0; i < shape.headPadded(); i += lanes) store(row + i, load(row + i) * inverses[t - first]);
      }
      storeRows(out, shape.headPadded(), end - first, shape.headWidth, output + first * shape.width(), shape.width());
    }
  }
};

// attention(qkv, heads, causal) -> [out [B, T, D], logSumExp [B·heads, T]]
napi_value attention(Call& call) {
  const Tensor given = call.tensor(0).contiguous();
  const Shape shape = shapeOf(given, call.integer(1), call.boolean(2));
  const Tensor qkv = needsFloats(given, shape) ? given.to(at::kFloat) : given;
  const int64_t width = shape.width(), tokens = shape.tokens;
  const Tensor out = at::empty({shape.batch, tokens, width}, qkv.options());
  const Tensor logSumExp = at::empty({shape.batch * shape.heads, tokens}, qkv.options().dtype(at::kFloat));
  byUnits(qkv, [&](auto units) {
    using Units = decltype(units);
    using T = typename Units::Element;
    const T* source = qkv.data_ptr<T>();
    T* target = out.data_ptr<T>();
    float* sums = logSumExp.data_ptr<float>();
    at::parallel_for(0, shape.batch * shape.heads, 4, [&](int64_t begin, int64_t end) {
      Forward<Units> forward(shape);
      for (int64_t unit = begin; unit < end; unit++) {
        const int64_t sample = unit / shape.heads, column = unit % shape.heads * shape.headWidth;
        const T* base = source + sample * tokens * 3 * width + column;
        forward.run({base, 3 * width}, {base + width, 3 * width}, {base + 2 * width, 3 * width}, target + sample * tokens * width + column,
                    sums + unit * tokens);
      }
    });
  });
  return call.wrap({likeIn(out, given), logSumExp});
}

/// One thread's backward over heads.
template <class Units>
class Backward {
  using T = typename Units::Element;
  static constexpr bool isFloat = std::is_same<T, float>::value;
  const Shape shape;
  Arena arena;
  uint32_t *keysT, *valuesT, *keys, *queries, *upstream, *pairedWeights, *pairedScores;
  float *scores, *dWeights, *dQuery, *dKeys, *dValues;
  T* dScores;

 public:
  explicit Backward(const Shape& s) : shape(s) {
    const int64_t block = s.blockQueries(), padded = s.tokensPadded(), head = s.headPadded();
    keysT = arena.units(unitsFor<Units>(s.headWidth) + lanes, padded);
    valuesT = arena.units(unitsFor<Units>(s.headWidth) + lanes, padded);
    keys = arena.units(unitsFor<Units>(s.tokens), head);
    queries = arena.units(unitsFor<Units>(block), head);
    upstream = arena.units(unitsFor<Units>(block), head);
    scores = arena.floats(block, padded);
    dWeights = arena.floats(block, padded);
    // fp32 probabilities and gradients take the place of what they are computed from, and serve both as rows and as columns.
    pairedWeights = isFloat ? reinterpret_cast<uint32_t*>(scores) : arena.units(unitsFor<Units>(block), padded);
    pairedScores = isFloat ? reinterpret_cast<uint32_t*>(dWeights) : arena.units(unitsFor<Units>(block), padded);
    dScores = isFloat ? reinterpret_cast<T*>(dWeights) : reinterpret_cast<T*>(arena.units(block, padded / Units::perUnit));
    dQuery = arena.floats(block, head);
    dKeys = arena.floats(padded, head);
    dValues = arena.floats(padded, head);
  }

  /// Gradients of one head's q, k and v, `stride` between rows and `width` between the three.
  void run(HeadRows<T> q, HeadRows<T> k, HeadRows<T> v, HeadRows<T> dOut, const float* logSumExp, T* gradient, int64_t stride, int64_t width) {
    const int64_t padded = shape.tokensPadded(), head = shape.headPadded(), depth = shape.headWidth / Units::perUnit;
    packColumns<Units>(k, shape, keysT);
    packColumns<Units>(v, shape, valuesT);
    packRows<Units>(k, 0, shape.tokens, shape.headWidth, keys);
    // With causal blocks the last keys are first seen by the last block: sums start from zero.
    std::fill(dKeys, dKeys + padded * head, 0.0f);
    std::fill(dValues, dValues + padded * head, 0.0f);
    for (int64_t first = 0; first < shape.tokens; first += shape.blockQueries()) {
      const int64_t end = std::min(shape.tokens, first + shape.blockQueries()), rows = end - first, seen = shape.keysBefore(end);
      smallGemm<Units>(asLeft<Units>(q, first), keysT, padded, {scores, padded, false}, rows, paddedWidth(seen), depth);
      smallGemm<Units>(asLeft<Units>(dOut, first), valuesT, padded, {dWeights, padded, false}, rows, paddedWidth(seen), depth);
      scoreGradients(first, end, paddedWidth(seen), logSumExp);
      packRows<Units>(dOut, first, end, shape.headWidth, upstream);
      packRows<Units>(q, first, end, shape.headWidth, queries);
      smallGemm<Units>({pairedWeights, 1, padded}, upstream, head, {dValues, head, true}, seen, head, unitsFor<Units>(rows));
      smallGemm<Units>({pairedScores, 1, padded}, queries, head, {dKeys, head, true}, seen, head, unitsFor<Units>(rows));
      smallGemm<Units>({reinterpret_cast<const uint32_t*>(dScores), padded / Units::perUnit, 1}, keys, head, {dQuery, head, false}, rows, head,
                       unitsFor<Units>(seen));
      storeRows(dQuery, head, rows, shape.headWidth, gradient + first * stride, stride);
    }
    storeRows(dKeys, head, shape.tokens, shape.headWidth, gradient + width, stride);
    storeRows(dValues, head, shape.tokens, shape.headWidth, gradient + 2 * width, stride);
  }

 private:
  /// Row by row: the probabilities again, and from their gradients those of q·kᵀ.
  void scoreGradients(int64_t first, int64_t end, int64_t columns, const float* logSumExp) {
    const int64_t padded = shape.tokensPadded();
    for (int64_t t = first; t < end; t++) {
      float* p = scores + (t - first) * padded;
      float* dP = dWeights + (t - first) * padded;
      const int64_t visible = shape.visible(t);
      Floats sum{};
      for (int64_t j = 0; j < columns; j += lanes) {
        const Floats weight = j < visible ? firstLanes(exponential(load(p + j) * shape.scale() - logSumExp[t]), visible - j, Floats{}) : Floats{};
        store(p + j, weight);
        sum += weight * load(dP + j);
      }
      const float mean = sumOf(sum);
      for (int64_t j = 0; j < columns; j += lanes) store(dP + j, load(p + j) * (load(dP + j) - mean) * shape.scale());
    }
    if (!isFloat) pairRows(first, end, columns);
  }

  /// bf16 copies: pairs of rows for the products that sum over queries, single rows for the one that sums over keys.
  void pairRows(int64_t first, int64_t end, int64_t columns) {
    const int64_t padded = shape.tokensPadded();
    const Floats none{};
    for (int64_t row = 0; row < end - first; row += Units::perUnit) {
      const bool both = row + 1 < end - first;
      const float* p = scores + row * padded;
      const float* dS = dWeights + row * padded;
      const int64_t pair = row / Units::perUnit * padded;
      for (int64_t j = 0; j < columns; j += lanes) {
        const Floats one = load(dS + j), two = both ? load(dS + padded + j) : none;
        storeUnits(pairedWeights + pair + j, Units::pair(load(p + j), both ? load(p + padded + j) : none));
        storeUnits(pairedScores + pair + j, Units::pair(one, two));
        store(dScores + row * padded + j, one);
        if (both) store(dScores + (row + 1) * padded + j, two);
      }
    }
  }
};

// attentionGradient(dOut, qkv, logSumExp, heads, causal) -> dqkv
napi_value attentionGradient(Call& call) {
  const Tensor given = call.tensor(1).contiguous();
  const Shape shape = shapeOf(given, call.integer(3), call.boolean(4));
  const Tensor qkv = needsFloats(given, shape) ? given.to(at::kFloat) : given;
  const Tensor dOut = likeIn(call.tensor(0), qkv);
  const Tensor& logSumExp = call.tensor(2);
  const int64_t width = shape.width(), tokens = shape.tokens;
  const Tensor gradient = at::empty_like(qkv);
  byUnits(qkv, [&](auto units) {
    using Units = decltype(units);
    using T = typename Units::Element;
    const T* source = qkv.data_ptr<T>();
    const T* upstream = dOut.data_ptr<T>();
    T* target = gradient.data_ptr<T>();
    const float* sums = logSumExp.data_ptr<float>();
    at::parallel_for(0, shape.batch * shape.heads, 4, [&](int64_t begin, int64_t end) {
      Backward<Units> backward(shape);
      for (int64_t unit = begin; unit < end; unit++) {
        const int64_t sample = unit / shape.heads, column = unit % shape.heads * shape.headWidth;
        const int64_t offset = sample * tokens * 3 * width + column;
        const T* base = source + offset;
        backward.run({base, 3 * width}, {base + width, 3 * width}, {base + 2 * width, 3 * width},
                     {upstream + sample * tokens * width + column, width}, sums + unit * tokens, target + offset, 3 * width, width);
      }
    });
  });
  return call.wrap(likeIn(gradient, given));
}

}  // namespace

void defineAttention(napi_env env, napi_value exports) {
  define(env, exports, {{"attention", entry<attention, generic::attention>}, {"attentionGradient", entry<attentionGradient, generic::attentionGradient>}});
}
}  // namespace covey
