// Ops around the token axis for any device; see generic.h.
#include "generic.h"
#include "pixels.h"

namespace covey::generic {

// The bytes travel, a quarter of what floats would be.
napi_value pixels(Call& call) {
  const PixelArguments given = pixelArguments(call);
  const Placement& place = call.context->place;
  const auto perChannel = [&](const float* values) { return upload(place, values, {given.channels()}, at::kFloat); };
  const Tensor raw = upload(place, given.bytes, given.shape, at::kByte).to(at::kFloat);
  const Tensor result = raw.mul_(perChannel(given.scale)).add_(perChannel(given.shift));
  return call.wrap(given.bfloat16 ? result.to(at::kBFloat16) : result);
}

napi_value embedding(Call& call) {
  const Tensor& table = call.tensor(0);
  const Tensor& ids = call.tensor(1);
  TORCH_CHECK(table.dim() == 2 && ids.scalar_type() == at::kInt, "embedding: expected a [V, D] table and int32 ids");
  auto shape = ids.sizes().vec();
  shape.push_back(table.size(1));
  return call.wrap(at::index_select(table, 0, ids.reshape({-1})).view(shape));
}

// embedding_dense_backward sorts the ids on a GPU: the order of sums is fixed there too.
napi_value embeddingGradient(Call& call) {
  return call.wrap(at::embedding_dense_backward(widened(call.tensor(0)).contiguous(), call.tensor(1).contiguous(), call.integer(2), -1, false));
}

napi_value addTokenAndPosition(Call& call) {
  const Tensor x = call.tensor(0).contiguous();
  const Tensor& position = call.tensor(2);
  const int64_t first = call.isNull(1) ? 0 : 1, tokens = x.size(1) + first;
  TORCH_CHECK(position.numel() == tokens * x.size(2), "addTokenAndPosition: position must be [", tokens, ", ", x.size(2), "], got ", position.sizes());
  if (first == 0) return call.wrap((x + position).to(x.scalar_type()));
  const Tensor out = at::empty({x.size(0), tokens, x.size(2)}, x.options());
  out.narrow(1, 1, x.size(1)).copy_(x + position.narrow(0, 1, x.size(1)));
  out.select(1, 0).copy_((call.tensor(1) + position.select(0, 0)).expand({x.size(0), x.size(2)}));
  return call.wrap(out);
}

napi_value positionGradient(Call& call) {
  const Tensor& dy = call.tensor(0);
  return call.wrap(at::sum(dy, {0}, false, wideType(dy)));
}

/// [B] places as flat rows of [B·T], checked on the host, on the device.
static Tensor flatRows(const Call& call, const TypedArray& index, int64_t batch, int64_t tokens) {
  TORCH_CHECK(index.type == napi_int32_array && static_cast<int64_t>(index.length) == batch, "selectTokens: one index per sequence is needed");
  std::vector<int64_t> rows(batch);
  for (int64_t b = 0; b < batch; b++) {
    const int64_t t = static_cast<const int32_t*>(index.data)[b];
    TORCH_CHECK(t >= 0 && t < tokens, "selectTokens: index ", t, " is outside [0, ", tokens, ")");
    rows[b] = b * tokens + t;
  }
  return upload(call.context->place, rows.data(), {batch}, at::kLong);
}

napi_value selectTokens(Call& call) {
  const Tensor x = call.tensor(0).contiguous();
  const Tensor rows = flatRows(call, call.typedArray(1), x.size(0), x.size(1));
  return call.wrap(at::index_select(asRows(x), 0, rows));
}

napi_value selectTokensGradient(Call& call) {
  const Tensor dy = call.tensor(0).to(typeAt(call, 3)).contiguous();
  const int64_t batch = dy.size(0), width = dy.size(1), tokens = call.integer(2);
  const Tensor rows = flatRows(call, call.typedArray(1), batch, tokens);
  // No row comes twice: a copy, not a sum.
  return call.wrap(at::zeros({batch * tokens, width}, dy.options()).index_copy_(0, rows, dy).view({batch, tokens, width}));
}

}  // namespace covey::generic
