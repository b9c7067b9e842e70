// x·wᵀ + b and its gradients. Products go to libtorch (oneDNN for bf16, BLAS for fp32); sums over rows are ours.
#include "generic.h"
#include "rows.h"

namespace covey {
namespace {

// linear(x, weight, bias | null) -> y, all of one type
napi_value linear(Call& call) {
  const Tensor& weight = call.tensor(1);
  const Tensor& x = call.tensor(0);
  const auto bias = call.isNull(2) ? Optional<Tensor>() : Optional<Tensor>(call.tensor(2));
  return call.wrap(at::linear(x, weight, bias));
}

// linearInputGradient(dy, weight) -> dx
napi_value linearInputGradient(Call& call) {
  const Tensor& weight = call.tensor(1);
  const Tensor dy = likeIn(call.tensor(0), weight);
  auto shape = dy.sizes().vec();
  const int64_t outputs = shape.back();
  shape.back() = weight.size(1);
  return call.wrap(at::mm(dy.view({-1, outputs}), weight).view(shape));
}

// linearWeightGradient(dy, x) -> fp32 [O, I]
napi_value linearWeightGradient(Call& call) {
  const Tensor x = call.tensor(1).contiguous();
  const Tensor dy = likeIn(call.tensor(0), x);
  const Tensor product = at::mm(dy.view({-1, dy.size(-1)}).t(), x.view({-1, x.size(-1)}));
  return call.wrap(product.to(at::kFloat));
}

// sumRows(dy) -> fp32 [O]: the bias's gradient
napi_value sumRows(Call& call) {
  requireFloating(call.tensor(0), "sumRows");
  const Tensor dy = call.tensor(0).contiguous();
  const int64_t width = dy.size(-1);
  const int64_t rows = dy.numel() / width;
  return byStorage(dy, [&](auto zero) {
    using T = decltype(zero);
    const T* data = dy.data_ptr<T>();
    auto totals = sumOverRows(rows, width, 1, [&](int64_t begin, int64_t end, float* sums) {
      for (int64_t row = begin; row < end; row++) {
        const T* from = data + row * width;
        for (int64_t i = 0; i < width; i += lanes) store(sums + i, load(sums + i) + loadPart(from + i, width - i));
      }
    });
    return call.wrap(totals[0]);
  });
}

}  // namespace

void defineLinear(napi_env env, napi_value exports) {
  define(env, exports, {{"linear", entry<linear, generic::linear>}, {"linearInputGradient", entry<linearInputGradient, generic::linearInputGradient>},
                        {"linearWeightGradient", entry<linearWeightGradient, generic::linearWeightGradient>}, {"sumRows", entry<sumRows, generic::sumRows>}});
}
}  // namespace covey
