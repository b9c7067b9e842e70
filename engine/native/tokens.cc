// Ops around the token axis: pixels in, embeddings, class token and positions, pooling, normalised features out.
#include <cmath>

#include "generic.h"
#include "pixels.h"
#include "rows.h"

namespace covey {
namespace {

// pixels(Uint8Array, shape [B, H, W, C], scale, shift, bf16) -> pixel·scale[c] + shift[c]
napi_value pixels(Call& call) {
  const PixelArguments given = pixelArguments(call);
  const int64_t channels = given.channels();
  const Tensor out = at::empty(given.shape, at::TensorOptions().dtype(given.bfloat16 ? at::kBFloat16 : at::kFloat));
  // 256 possible results per channel: a table is exact and faster than arithmetic.
  std::vector<float> table(256 * channels);
  for (int64_t value = 0; value < 256; value++) {
    for (int64_t c = 0; c < channels; c++) table[value * channels + c] = static_cast<float>(value) * given.scale[c] + given.shift[c];
  }
  const uint8_t* from = given.bytes;
  byStorage(out, [&](auto zero) {
    using T = decltype(zero);
    T* to = out.data_ptr<T>();
    at::parallel_for(0, out.numel() / channels, 16384, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        for (int64_t c = 0; c < channels; c++) to[i * channels + c] = static_cast<T>(table[from[i * channels + c] * channels + c]);
      }
    });
  });
  return call.wrap(out);
}

// embedding(table [V, D], ids) -> fp32 [...ids, D]
napi_value embedding(Call& call) {
  const Tensor& table = call.tensor(0);
  const Tensor& ids = call.tensor(1);
  requireCpu(table, "embedding");
  TORCH_CHECK(table.dim() == 2 && ids.scalar_type() == at::kInt, "embedding: expected a [V, D] table and int32 ids");
  const Tensor flat = ids.contiguous().view({-1});
  auto shape = ids.sizes().vec();
  shape.push_back(table.size(1));
  return call.wrap(at::index_select(table, 0, flat).view(shape));
}

// embeddingGradient(dy [..., D], ids, vocabulary) -> fp32 [V, D]; rows are added in the order of the ids
napi_value embeddingGradient(Call& call) {
  const Tensor dy = call.tensor(0).to(at::kFloat).contiguous();
  const Tensor ids = call.tensor(1).contiguous();
  const int64_t vocabulary = call.integer(2), width = dy.size(-1);
  const Tensor gradient = at::zeros({vocabulary, width}, dy.options());
  const int32_t* id = ids.data_ptr<int32_t>();
  for (int64_t i = 0; i < ids.numel(); i++) {
    TORCH_CHECK(id[i] >= 0 && id[i] < vocabulary, "embedding: id ", id[i], " is outside [0, ", vocabulary, ")");
    addVectors(gradient.data_ptr<float>() + id[i] * width, dy.data_ptr<float>() + i * width, width);
  }
  return call.wrap(gradient);
}

// addTokenAndPosition(x [B, N, D], token [D] | null, position [T, D]) -> [B, T, D]
napi_value addTokenAndPosition(Call& call) {
  requireFloating(call.tensor(0), "addTokenAndPosition");
  const Tensor x = call.tensor(0).contiguous();
  const Tensor token = call.isNull(1) ? Tensor() : call.tensor(1).contiguous();
  const Tensor position = call.tensor(2).contiguous();
  const int64_t first = token.defined() ? 1 : 0, batch = x.size(0), tokens = x.size(1) + first, width = x.size(2);
  TORCH_CHECK(position.scalar_type() == at::kFloat && position.numel() == tokens * width, "addTokenAndPosition: position must be float32 [", tokens, ", ",
              width, "], got ", position.sizes());
  TORCH_CHECK(!token.defined() || (token.scalar_type() == at::kFloat && token.numel() == width), "addTokenAndPosition: token must be float32 [", width, "]");
  const Tensor out = at::empty({batch, tokens, width}, x.options());
  byStorage(x, [&](auto zero) {
    using T = decltype(zero);
    eachRow(batch * tokens, width, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; row++) {
        const int64_t b = row / tokens, t = row % tokens;
        const T* from = x.data_ptr<T>() + (b * (tokens - first) + t - first) * width;
        const float* add = position.data_ptr<float>() + t * width;
        T* to = out.data_ptr<T>() + row * width;
        for (int64_t i = 0; i < width; i += lanes) {
          const Floats value = t < first ? loadPart(token.data_ptr<float>() + i, width - i) : loadPart(from + i, width - i);
          storePart(to + i, value + loadPart(add + i, width - i), width - i);
        }
      }
    });
  });
  return call.wrap(out);
}

// positionGradient(dy [B, T, D]) -> fp32 [T, D]: summed over the batch in order
napi_value positionGradient(Call& call) {
  requireFloating(call.tensor(0), "positionGradient");
  const Tensor dy = call.tensor(0).contiguous();
  const int64_t batch = dy.size(0), size = dy.size(1) * dy.size(2);
  const Tensor gradient = at::empty({dy.size(1), dy.size(2)}, dy.options().dtype(at::kFloat));
  byStorage(dy, [&](auto zero) {
    using T = decltype(zero);
    at::parallel_for(0, (size + lanes - 1) / lanes, 16, [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; block++) {
        const int64_t i = block * lanes;
        Floats sum{};
        for (int64_t b = 0; b < batch; b++) sum += loadPart(dy.data_ptr<T>() + b * size + i, size - i);
        storePart(gradient.data_ptr<float>() + i, sum, size - i);
      }
    });
  });
  return call.wrap(gradient);
}

// selectTokens(x [B, T, D], index Int32Array [B]) -> [B, D]
napi_value selectTokens(Call& call) {
  const Tensor x = call.tensor(0).contiguous();
  const TypedArray index = call.typedArray(1);
  const int64_t batch = x.size(0), tokens = x.size(1), width = x.size(2), bytes = width * x.element_size();
  TORCH_CHECK(index.type == napi_int32_array && static_cast<int64_t>(index.length) == batch, "selectTokens: one index per sequence is needed");
  const Tensor out = at::empty({batch, width}, x.options());
  for (int64_t b = 0; b < batch; b++) {
    const int64_t t = static_cast<const int32_t*>(index.data)[b];
    TORCH_CHECK(t >= 0 && t < tokens, "selectTokens: index ", t, " is outside [0, ", tokens, ")");
    std::memcpy(static_cast<char*>(out.data_ptr()) + b * bytes, static_cast<const char*>(x.data_ptr()) + (b * tokens + t) * bytes, bytes);
  }
  return call.wrap(out);
}

// selectTokensGradient(dy [B, D], index Int32Array [B], tokens, scalarType) -> [B, T, D], zero elsewhere
napi_value selectTokensGradient(Call& call) {
  const Tensor dy = call.tensor(0).to(static_cast<at::ScalarType>(call.integer(3))).contiguous();
  const TypedArray index = call.typedArray(1);
  const int64_t batch = dy.size(0), width = dy.size(1), tokens = call.integer(2), bytes = width * dy.element_size();
  const Tensor out = at::zeros({batch, tokens, width}, dy.options());
  for (int64_t b = 0; b < batch; b++) {
    const int64_t t = static_cast<const int32_t*>(index.data)[b];
    std::memcpy(static_cast<char*>(out.data_ptr()) + (b * tokens + t) * bytes, static_cast<const char*>(dy.data_ptr()) + b * bytes, bytes);
  }
  return call.wrap(out);
}

// l2Normalize(x [..., D], normMin) -> [y fp32, norm fp32 [rows]]
napi_value l2Normalize(Call& call) {
  requireFloating(call.tensor(0), "l2Normalize");
  const Tensor x = call.tensor(0).to(at::kFloat).contiguous();
  const float smallest = static_cast<float>(call.number(1));
  const int64_t width = x.size(-1), rows = x.numel() / width;
  const Tensor y = at::empty_like(x);
  const Tensor norms = at::empty({rows}, x.options());
  eachRow(rows, width, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const float* from = x.data_ptr<float>() + r * width;
      Floats squares{};
      for (int64_t i = 0; i < width; i += lanes) {
        const Floats value = loadPart(from + i, width - i);
        squares += value * value;
      }
      const float norm = std::max(std::sqrt(sumOf(squares)), smallest);
      norms.data_ptr<float>()[r] = norm;
      for (int64_t i = 0; i < width; i += lanes) storePart(y.data_ptr<float>() + r * width + i, loadPart(from + i, width - i) / norm, width - i);
    }
  });
  return call.wrap({y, norms});
}

// l2NormalizeGradient(dy, y, norm, scalarType) -> dx = (dy − y·(dy·y)) / norm
napi_value l2NormalizeGradient(Call& call) {
  const Tensor& y = call.tensor(1);
  const Tensor dy = likeIn(call.tensor(0), y);
  const Tensor& norms = call.tensor(2);
  const int64_t width = y.size(-1), rows = y.numel() / width;
  const Tensor dx = at::empty_like(y);
  eachRow(rows, width, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const float* value = y.data_ptr<float>() + r * width;
      const float* upstream = dy.data_ptr<float>() + r * width;
      Floats products{};
      for (int64_t i = 0; i < width; i += lanes) products += loadPart(value + i, width - i) * loadPart(upstream + i, width - i);
      const float projection = sumOf(products), norm = norms.data_ptr<float>()[r];
      for (int64_t i = 0; i < width; i += lanes) {
        const Floats d = (loadPart(upstream + i, width - i) - loadPart(value + i, width - i) * projection) / norm;
        storePart(dx.data_ptr<float>() + r * width + i, d, width - i);
      }
    }
  });
  return call.wrap(dx.to(static_cast<at::ScalarType>(call.integer(3))));
}

}  // namespace

void defineTokens(napi_env env, napi_value exports) {
  define(env, exports, {{"pixels", entry<pixels, generic::pixels>}, {"embedding", entry<embedding, generic::embedding>}, {"embeddingGradient", entry<embeddingGradient, generic::embeddingGradient>},
                        {"addTokenAndPosition", entry<addTokenAndPosition, generic::addTokenAndPosition>}, {"positionGradient", entry<positionGradient, generic::positionGradient>},
                        {"selectTokens", entry<selectTokens, generic::selectTokens>}, {"selectTokensGradient", entry<selectTokensGradient, generic::selectTokensGradient>},
                        {"l2Normalize", entry<l2Normalize, generic::l2Normalize>}, {"l2NormalizeGradient", entry<l2NormalizeGradient, generic::l2NormalizeGradient>}});
}
}  // namespace covey
