// What contrastive losses sum over all pairs of a lane's rows and everybody's: similarities are made in tiles that stay in the cache, turned into
// weights where they lie, and multiplied away at once. Shapes: R query rows, N keys, D width.
#include <cmath>
#include <limits>

#include "context.h"
#include "rows.h"

namespace covey {
// The same for any device: generic_similarity.cc. Declared here, where alone they are used.
namespace generic {
napi_value similarityLogSumExp(Call&);
napi_value similarityWeights(Call&);
napi_value similaritySigmoids(Call&);
}  // namespace generic

namespace {

/// A tile of similarities, 1 MiB. The columns are part of the numerics: they order the sums.
constexpr int64_t tileRows = 256;
constexpr int64_t tileColumns = 1024;

struct Pairs {
  Tensor query_RD;  // times the scale
  Tensor keys_ND;
  Tensor tile = at::empty({tileRows * tileColumns}, at::kFloat);

  Pairs(Call& call) : query_RD(call.tensor(0).mul(call.number(2)).contiguous()), keys_ND(call.tensor(1).contiguous()) {
    TORCH_CHECK(query_RD.dim() == 2 && keys_ND.dim() == 2 && query_RD.size(1) == keys_ND.size(1), "similarity: rows of one width are needed");
    TORCH_CHECK(query_RD.scalar_type() == at::kFloat && keys_ND.scalar_type() == at::kFloat, "similarity: float32 is needed");
  }

  int64_t rows() const { return query_RD.size(0); }

  /**
   * Calls visit(logits, row, column, width) for each row of each tile: `width` similarities of query `row` with the keys from `column` on, to be read
   * and replaced; then done(tile_rc, firstRow, keys_cD). Tiles of columns come in order, so that what is summed over them is summed in order.
   */
  template <class Visit, class Done>
  void eachTile(Visit&& visit, Done&& done) const {
    const int64_t keys = keys_ND.size(0);
    for (int64_t column = 0; column < keys; column += tileColumns) {
      const int64_t width = std::min(tileColumns, keys - column);
      const Tensor keys_cD = keys_ND.narrow(0, column, width);
      for (int64_t row = 0; row < rows(); row += tileRows) {
        const int64_t height = std::min(tileRows, rows() - row);
        Tensor tile_rc = tile.narrow(0, 0, height * width).view({height, width});
        at::mm_out(tile_rc, query_RD.narrow(0, row, height), keys_cD.t());
        float* logits = tile_rc.data_ptr<float>();
        eachRow(height, width, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; i++) visit(logits + i * width, row + i, column, width);
        });
        done(tile_rc, row, keys_cD);
      }
    }
  }
};

Tensor zeroRows(int64_t rows) { return at::zeros({rows}, at::kFloat); }

/// The first `left` lanes; the rest zero.
Floats countOnly(Floats value, int64_t left) {
  for (int64_t i = std::max<int64_t>(left, 0); i < lanes; i++) value[i] = 0;
  return value;
}

float rowMaximum(const float* logits, int64_t width) {
  Floats highest = broadcast(-std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + lanes <= width; i += lanes) highest = maximum(load(logits + i), highest);
  float found = maximumOf(highest);
  for (; i < width; i++) found = logits[i] > found ? logits[i] : found;
  return found;
}

// similarityLogSumExp(query, keys, scale) -> log Σ_j exp(scale·query·key_j), [R]
napi_value similarityLogSumExp(Call& call) {
  const Pairs pairs(call);
  const Tensor highest_R = at::full({pairs.rows()}, -std::numeric_limits<float>::infinity(), at::kFloat);
  const Tensor sum_R = zeroRows(pairs.rows());
  float* highest = highest_R.data_ptr<float>();
  float* sums = sum_R.data_ptr<float>();
  pairs.eachTile(
      [&](const float* logits, int64_t row, int64_t, int64_t width) {
        const float before = highest[row];
        const float now = std::max(rowMaximum(logits, width), before);
        Floats sum = broadcast(0);
        int64_t i = 0;
        for (; i + lanes <= width; i += lanes) sum = sum + exponential(load(logits + i) - now);
        if (i < width) sum = sum + countOnly(exponential(loadPart(logits + i, width - i) - now), width - i);
        sums[row] = sums[row] * std::exp(before - now) + sumOf(sum);
        highest[row] = now;
      },
      [](const Tensor&, int64_t, const Tensor&) {});
  return call.wrap(highest_R + sum_R.log());
}

// similarityWeights(query, keys, scale, queryLse, keyLse) -> [Σ_j w_j·key_j [R,D], Σ_j w_j·l_j [R]], l_j = scale·query·key_j,
// w_j = (exp(l_j − queryLse) + exp(l_j − keyLse_j))/2
napi_value similarityWeights(Call& call) {
  const Pairs pairs(call);
  const Tensor queryLse_R = call.tensor(3).contiguous();
  const Tensor keyLse_N = call.tensor(4).contiguous();
  const float* queryLse = queryLse_R.data_ptr<float>();
  const float* keyLse = keyLse_N.data_ptr<float>();
  const Tensor sum_RD = at::zeros_like(pairs.query_RD);
  const Tensor logits_R = zeroRows(pairs.rows());
  float* weighted = logits_R.data_ptr<float>();
  pairs.eachTile(
      [&](float* logits, int64_t row, int64_t column, int64_t width) {
        Floats sum = broadcast(0);
        const float own = queryLse[row];
        for (int64_t i = 0; i < width; i += lanes) {
          const int64_t left = width - i;
          const Floats logit = loadPart(logits + i, left);
          const Floats weight = 0.5f * (exponential(logit - own) + exponential(logit - loadPart(keyLse + column + i, left)));
          // Beyond the row's end the logit is zero, and so is the product.
          sum = sum + weight * logit;
          storePart(logits + i, weight, left);
        }
        weighted[row] += sumOf(sum);
      },
      [&](const Tensor& weights_rc, int64_t row, const Tensor& keys_cD) {
        sum_RD.narrow(0, row, weights_rc.size(0)).addmm_(weights_rc, keys_cD);
      });
  return call.wrap({sum_RD, logits_R});
}

/// log(1 + t) for 0 ≤ t ≤ 1: 2·atanh(t/(2 + t)), the series to z¹³.
Floats logOnePlus(Floats t) {
  const Floats z = t * reciprocal(2.0f + t);
  const Floats square = z * z;
  Floats p = broadcast(1.0f / 13);
  p = p * square + 1.0f / 11;
  p = p * square + 1.0f / 9;
  p = p * square + 1.0f / 7;
  p = p * square + 1.0f / 5;
  p = p * square + 1.0f / 3;
  return 2.0f * z * (p * square + 1.0f);
}

// similaritySigmoids(query, keys, scale, bias) -> [Σ_j σ(l_j)·key_j [R,D], Σ_j σ(l_j), Σ_j σ(l_j)·s_j, Σ_j log(1 + exp(l_j))], s_j = scale·query·key_j, l_j = s_j + bias
napi_value similaritySigmoids(Call& call) {
  const Pairs pairs(call);
  const auto bias = static_cast<float>(call.number(3));
  const Tensor sum_RD = at::zeros_like(pairs.query_RD);
  const Tensor sigmoid_R = zeroRows(pairs.rows()), scaled_R = zeroRows(pairs.rows()), loss_R = zeroRows(pairs.rows());
  float* sigmoids = sigmoid_R.data_ptr<float>();
  float* scaled = scaled_R.data_ptr<float>();
  float* losses = loss_R.data_ptr<float>();
  pairs.eachTile(
      [&](float* similarities, int64_t row, int64_t, int64_t width) {
        Floats sigmoidSum = broadcast(0), scaledSum = broadcast(0), lossSum = broadcast(0);
        for (int64_t i = 0; i < width; i += lanes) {
          const int64_t left = width - i;
          const Floats similarity = loadPart(similarities + i, left);
          const Floats logit = similarity + bias;
          const Floats small = exponential(select(logit < 0.0f, logit, -logit));  // exp(−|l|)
          const Floats share = reciprocal(1.0f + small);
          const Floats sigmoid = select(logit < 0.0f, small * share, share);
          const Floats loss = maximum(broadcast(0), logit) + logOnePlus(small);
          sigmoidSum = sigmoidSum + (left < lanes ? countOnly(sigmoid, left) : sigmoid);
          lossSum = lossSum + (left < lanes ? countOnly(loss, left) : loss);
          scaledSum = scaledSum + sigmoid * similarity;
          storePart(similarities + i, sigmoid, left);
        }
        sigmoids[row] += sumOf(sigmoidSum);
        scaled[row] += sumOf(scaledSum);
        losses[row] += sumOf(lossSum);
      },
      [&](const Tensor& sigmoids_rc, int64_t row, const Tensor& keys_cD) {
        sum_RD.narrow(0, row, sigmoids_rc.size(0)).addmm_(sigmoids_rc, keys_cD);
      });
  return call.wrap({sum_RD, sigmoid_R, scaled_R, loss_R});
}

}  // namespace

void defineSimilarity(napi_env env, napi_value exports) {
  define(env, exports,
         {{"similarityLogSumExp", entry<similarityLogSumExp, generic::similarityLogSumExp>},
          {"similarityWeights", entry<similarityWeights, generic::similarityWeights>},
          {"similaritySigmoids", entry<similaritySigmoids, generic::similaritySigmoids>}});
}
}  // namespace covey
