// What contrastive losses sum over all pairs of a lane's rows and everybody's: similarities are made in tiles that stay in the cache, turned into
// weights where they lie, and multiplied away at once (similarity_tiles.h). Shapes: R query rows, N keys, D width.
#include <cmath>
#include <limits>

#include "context.h"
#include "similarity_tiles.h"

namespace covey {
// The same for any device: generic_similarity.cc. Declared here, where alone they are used.
namespace generic {
napi_value similarityLogSumExp(Call&);
napi_value similarityWeights(Call&);
napi_value similaritySigmoids(Call&);
}  // namespace generic

namespace {

/// One number for each query, padded to whole vectors.
struct Sums {
  Tensor rows_R;
  explicit Sums(const SimilarityTiles& tiles, float value = 0) : rows_R(at::full({tiles.paddedRows()}, value, at::kFloat)) {}
  float* at(int64_t row) const { return rows_R.data_ptr<float>() + row; }
  Tensor of(int64_t rows) const { return rows_R.narrow(0, 0, rows).contiguous(); }
};

// similarityLogSumExp(query, keys, scale) -> log Σ_j exp(scale·query·key_j), [R]
napi_value similarityLogSumExp(Call& call) {
  SimilarityTiles tiles(call.tensor(0), call.tensor(1), call.number(2));
  const Sums highest(tiles, -std::numeric_limits<float>::infinity()), sum(tiles);
  tiles.each<2>(
      [](const Chunk& chunk, float* partial) {
        for (int64_t r = 0; r < chunk.width; r += lanes) {
          // The logit comes first: a comparison with NaN then chooses the highest, and the sum carries it on.
          Floats most = broadcast(-std::numeric_limits<float>::infinity());
          for (int64_t k = 0; k < chunk.keys; k++) most = maximum(chunk.at(k, r), most);
          Floats total = broadcast(0);
          for (int64_t k = 0; k < chunk.keys; k++) total = total + exponential(chunk.at(k, r) - most);
          store(partial + r, most);
          store(partial + stripRows + r, total);
        }
      },
      [&](const float* partial, int64_t row) {
        const Floats before = load(highest.at(row)), most = load(partial);
        const Floats now = maximum(most, before);
        store(sum.at(row), load(sum.at(row)) * exponential(before - now) + load(partial + stripRows) * exponential(most - now));
        store(highest.at(row), now);
      });
  return call.wrap((highest.rows_R + sum.rows_R.log()).narrow(0, 0, tiles.rows()).contiguous());
}

// similarityWeights(query, keys, scale, queryLse, keyLse) -> [Σ_j w_j·key_j [R,D], Σ_j w_j·l_j [R]], l_j = scale·query·key_j,
// w_j = (exp(l_j − queryLse) + exp(l_j − keyLse_j))/2
napi_value similarityWeights(Call& call) {
  SimilarityTiles tiles(call.tensor(0), call.tensor(1), call.number(2));
  const Sums queryLse(tiles), weighted(tiles);
  queryLse.rows_R.narrow(0, 0, tiles.rows()).copy_(call.tensor(3));
  const Tensor keyLse_N = call.tensor(4).contiguous();
  const float* keyLse = keyLse_N.data_ptr<float>();
  const Tensor sum_RD = tiles.each<1>(
      [&](const Chunk& chunk, float* partial) {
        for (int64_t r = 0; r < chunk.width; r += lanes) {
          const Floats own = load(queryLse.at(chunk.row + r));
          Floats sum = broadcast(0);
          for (int64_t k = 0; k < chunk.keys; k++) {
            const Floats logit = chunk.at(k, r);
            const Floats weight = 0.5f * (exponential(logit - own) + exponential(logit - keyLse[chunk.key + k]));
            sum = sum + weight * logit;
            chunk.set(k, r, weight);
          }
          store(partial + r, sum);
        }
      },
      [&](const float* partial, int64_t row) { addVectors(weighted.at(row), partial, lanes); }, true);
  return call.wrap({sum_RD, weighted.of(tiles.rows())});
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
  SimilarityTiles tiles(call.tensor(0), call.tensor(1), call.number(2));
  const auto bias = static_cast<float>(call.number(3));
  const Sums sigmoids(tiles), scaled(tiles), losses(tiles);
  const Tensor sum_RD = tiles.each<3>(
      [bias](const Chunk& chunk, float* partial) {
        for (int64_t r = 0; r < chunk.width; r += lanes) {
          Floats sigmoidSum = broadcast(0), scaledSum = broadcast(0), lossSum = broadcast(0);
          for (int64_t k = 0; k < chunk.keys; k++) {
            const Floats similarity = chunk.at(k, r);
            const Floats logit = similarity + bias;
            const Floats small = exponential(select(logit < 0.0f, logit, -logit));  // exp(−|l|)
            const Floats share = reciprocal(1.0f + small);
            const Floats sigmoid = select(logit < 0.0f, small * share, share);
            sigmoidSum = sigmoidSum + sigmoid;
            scaledSum = scaledSum + sigmoid * similarity;
            lossSum = lossSum + (maximum(broadcast(0), logit) + logOnePlus(small));
            chunk.set(k, r, sigmoid);
          }
          store(partial + r, sigmoidSum);
          store(partial + stripRows + r, scaledSum);
          store(partial + 2 * stripRows + r, lossSum);
        }
      },
      [&](const float* partial, int64_t row) {
        addVectors(sigmoids.at(row), partial, lanes);
        addVectors(scaled.at(row), partial + stripRows, lanes);
        addVectors(losses.at(row), partial + 2 * stripRows, lanes);
      },
      true);
  const int64_t rows = tiles.rows();
  return call.wrap({sum_RD, sigmoids.of(rows), scaled.of(rows), losses.of(rows)});
}

}  // namespace

void defineSimilarity(napi_env env, napi_value exports) {
  define(env, exports,
         {{"similarityLogSumExp", entry<similarityLogSumExp, generic::similarityLogSumExp>},
          {"similarityWeights", entry<similarityWeights, generic::similarityWeights>},
          {"similaritySigmoids", entry<similaritySigmoids, generic::similaritySigmoids>}});
}
}  // namespace covey
