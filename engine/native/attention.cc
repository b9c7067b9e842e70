// Self-attention for short sequences: each (sample, head) is a handful of small fp32 products in cache. Backward recomputes the
// probabilities from the saved log-sum-exps (Dao et al. 2022, §3.1) instead of keeping T×T numbers per head.
#include <cmath>
#include <limits>

#include "rows.h"
#include "small_gemm.h"

namespace covey {
namespace {

struct Shape {
  int64_t batch, tokens, heads, headWidth;
  bool causal;
  int64_t width() const { return heads * headWidth; }
  int64_t tokensPadded() const { return paddedWidth(tokens); }
  int64_t headPadded() const { return paddedWidth(headWidth); }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(headWidth)); }
};

/// One head's matrices as floats. Padding is zero.
struct Scratch {
  Shape shape;
  std::vector<float> memory;
  float *q, *k, *v, *dOut, *kT, *vT, *p, *dP, *out;

  explicit Scratch(const Shape& s) : shape(s) {
    const int64_t row = s.tokens * s.headPadded(), column = s.headPadded() * s.tokensPadded(), square = s.tokens * s.tokensPadded();
    memory.assign(5 * row + 2 * column + 2 * square + lanes, 0.0f);
    float* next = memory.data();
    auto take = [&next](int64_t size) { float* here = next; next += size; return here; };
    q = take(row); k = take(row); v = take(row); dOut = take(row); out = take(row);
    kT = take(column); vT = take(column);
    p = take(square); dP = take(square);
  }

  /// Rows of one head, each `stride` apart, times `factor`.
  template <class T>
  void loadRows(const T* from, int64_t stride, float factor, float* to) const {
    for (int64_t t = 0; t < shape.tokens; t++) {
      for (int64_t d = 0; d < shape.headWidth; d += lanes) {
        store(to + t * shape.headPadded() + d, loadPart(from + t * stride + d, shape.headWidth - d) * factor);
      }
    }
  }
  template <class T>
  void storeRows(const float* from, float factor, T* to, int64_t stride) const {
    for (int64_t t = 0; t < shape.tokens; t++) {
      for (int64_t d = 0; d < shape.headWidth; d += lanes) {
        storePart(to + t * stride + d, load(from + t * shape.headPadded() + d) * factor, shape.headWidth - d);
      }
    }
  }
  void transpose(const float* from, float* to) const {
    for (int64_t t = 0; t < shape.tokens; t++) {
      for (int64_t d = 0; d < shape.headWidth; d++) to[d * shape.tokensPadded() + t] = from[t * shape.headPadded() + d];
    }
  }
  /// p = q·kᵀ; q is already scaled.
  void scores() const {
    smallGemm({q, shape.headPadded(), 1}, kT, shape.tokensPadded(), p, shape.tokensPadded(), shape.tokens, shape.tokensPadded(), shape.headWidth);
  }
  int64_t visible(int64_t row) const { return shape.causal ? row + 1 : shape.tokens; }
};

/// Lane numbers below `count` keep their value, the others become `other`.
inline Floats firstLanes(Floats value, int64_t count, Floats other) {
  const Ints index = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return select(index < static_cast<int32_t>(std::max<int64_t>(0, std::min<int64_t>(count, lanes))), value, other);
}

/// Turns a row of scores into probabilities over its visible tokens (zero elsewhere); returns the log-sum-exp.
float softmaxRow(float* row, int64_t visible, int64_t padded) {
  const Floats lowest = broadcast(-std::numeric_limits<float>::infinity());
  Floats highest = lowest;
  for (int64_t j = 0; j < visible; j += lanes) highest = maximum(highest, firstLanes(load(row + j), visible - j, lowest));
  float top = highest[0];
  for (int i = 1; i < lanes; i++) top = std::max(top, highest[i]);
  Floats sum{};
  for (int64_t j = 0; j < padded; j += lanes) {
    const Floats weight = firstLanes(exponential(load(row + j) - top), visible - j, Floats{});
    store(row + j, weight);
    sum += weight;
  }
  const float total = sumOf(sum);
  const float inverse = 1.0f / total;
  for (int64_t j = 0; j < visible; j += lanes) store(row + j, load(row + j) * inverse);
  return top + std::log(total);
}

Shape shapeOf(const Tensor& qkv, int64_t heads, bool causal) {
  requireFloating(qkv, "attention");
  TORCH_CHECK(qkv.dim() == 3 && qkv.size(2) % (3 * heads) == 0, "attention: expected [B, T, 3·D] with D a multiple of ", heads, " heads, got ",
              qkv.sizes());
  return {qkv.size(0), qkv.size(1), heads, qkv.size(2) / 3 / heads, causal};
}

// attention(qkv, heads, causal) -> [out [B, T, D], logSumExp [B·heads, T]]
napi_value attention(Call& call) {
  const Tensor qkv = call.tensor(0).contiguous();
  const Shape shape = shapeOf(qkv, call.integer(1), call.boolean(2));
  const int64_t width = shape.width();
  const Tensor out = at::empty({shape.batch, shape.tokens, width}, qkv.options());
  const Tensor logSumExp = at::empty({shape.batch * shape.heads, shape.tokens}, qkv.options().dtype(at::kFloat));
  byStorage(qkv, [&](auto zero) {
    using T = decltype(zero);
    at::parallel_for(0, shape.batch * shape.heads, 4, [&](int64_t begin, int64_t end) {
      const Scratch s(shape);
      for (int64_t unit = begin; unit < end; unit++) {
        const int64_t sample = unit / shape.heads, column = unit % shape.heads * shape.headWidth;
        const T* base = qkv.data_ptr<T>() + sample * shape.tokens * 3 * width + column;
        s.loadRows(base, 3 * width, shape.scale(), s.q);
        s.loadRows(base + width, 3 * width, 1.0f, s.k);
        s.loadRows(base + 2 * width, 3 * width, 1.0f, s.v);
        s.transpose(s.k, s.kT);
        s.scores();
        for (int64_t t = 0; t < shape.tokens; t++) {
          logSumExp.data_ptr<float>()[unit * shape.tokens + t] = softmaxRow(s.p + t * shape.tokensPadded(), s.visible(t), shape.tokensPadded());
        }
        smallGemm({s.p, shape.tokensPadded(), 1}, s.v, shape.headPadded(), s.out, shape.headPadded(), shape.tokens, shape.headPadded(), shape.tokens);
        s.storeRows(s.out, 1.0f, out.data_ptr<T>() + sample * shape.tokens * width + column, width);
      }
    });
  });
  return call.wrap({out, logSumExp});
}

/// p becomes the probabilities again, dP becomes the scores' gradient.
void scoreGradients(const Scratch& s, const float* logSumExp) {
  const int64_t padded = s.shape.tokensPadded();
  for (int64_t t = 0; t < s.shape.tokens; t++) {
    float* p = s.p + t * padded;
    float* dP = s.dP + t * padded;
    const int64_t visible = s.visible(t);
    Floats sum{};
    for (int64_t j = 0; j < padded; j += lanes) {
      const Floats probability = firstLanes(exponential(load(p + j) - logSumExp[t]), visible - j, Floats{});
      store(p + j, probability);
      sum += probability * load(dP + j);
    }
    const float mean = sumOf(sum);
    for (int64_t j = 0; j < padded; j += lanes) store(dP + j, load(p + j) * (load(dP + j) - mean));
  }
}

// attentionGradient(dOut, qkv, logSumExp, heads, causal) -> dqkv
napi_value attentionGradient(Call& call) {
  const Tensor qkv = call.tensor(1).contiguous();
  const Tensor dOut = likeIn(call.tensor(0), qkv);
  const Tensor& logSumExp = call.tensor(2);
  const Shape shape = shapeOf(qkv, call.integer(3), call.boolean(4));
  const int64_t width = shape.width(), tokens = shape.tokens, tp = shape.tokensPadded(), hp = shape.headPadded();
  const Tensor gradient = at::empty_like(qkv);
  byStorage(qkv, [&](auto zero) {
    using T = decltype(zero);
    at::parallel_for(0, shape.batch * shape.heads, 4, [&](int64_t begin, int64_t end) {
      const Scratch s(shape);
      for (int64_t unit = begin; unit < end; unit++) {
        const int64_t sample = unit / shape.heads, column = unit % shape.heads * shape.headWidth;
        const int64_t offset = sample * tokens * 3 * width + column;
        const T* base = qkv.data_ptr<T>() + offset;
        T* target = gradient.data_ptr<T>() + offset;
        s.loadRows(base, 3 * width, shape.scale(), s.q);
        s.loadRows(base + width, 3 * width, 1.0f, s.k);
        s.loadRows(base + 2 * width, 3 * width, 1.0f, s.v);
        s.loadRows(dOut.data_ptr<T>() + sample * tokens * width + column, width, 1.0f, s.dOut);
        s.transpose(s.k, s.kT);
        s.transpose(s.v, s.vT);
        s.scores();
        smallGemm({s.dOut, hp, 1}, s.vT, tp, s.dP, tp, tokens, tp, shape.headWidth);
        scoreGradients(s, logSumExp.data_ptr<float>() + unit * tokens);
        smallGemm({s.p, 1, tp}, s.dOut, hp, s.out, hp, tokens, hp, tokens);
        s.storeRows(s.out, 1.0f, target + 2 * width, 3 * width);
        smallGemm({s.dP, 1, tp}, s.q, hp, s.out, hp, tokens, hp, tokens);
        s.storeRows(s.out, 1.0f, target + width, 3 * width);
        smallGemm({s.dP, tp, 1}, s.k, hp, s.out, hp, tokens, hp, tokens);
        s.storeRows(s.out, shape.scale(), target, 3 * width);
      }
    });
  });
  return call.wrap(gradient);
}

}  // namespace

void defineAttention(napi_env env, napi_value exports) {
  define(env, exports, {{"attention", entry<attention>}, {"attentionGradient", entry<attentionGradient>}});
}
}  // namespace covey
