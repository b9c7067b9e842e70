// x·wᵀ + b and its gradients, alone and with the activation that follows. Sums over rows are ours; products are oneDNN's (product.h), or
// libtorch's where those are not to be had.
#include "activation.h"
#include "generic.h"
#include "product.h"

namespace covey {
namespace {

/// What a layer is about: x as rows of K, weight [N, K].
struct Layer {
  Tensor x;
  Tensor weight;
  Optional<Tensor> bias;
  int64_t rows, n, k;
  std::vector<int64_t> outputShape;
};

void requireWeight(const Tensor& weight) { TORCH_CHECK(weight.dim() == 2, "a layer's weight is a matrix, not of shape ", weight.sizes()); }

Layer layerOf(Call& call) {
  const Tensor& weight = call.tensor(1);
  requireWeight(weight);
  const Tensor x = call.tensor(0).contiguous();
  const auto bias = call.isNull(2) ? Optional<Tensor>() : Optional<Tensor>(call.tensor(2).contiguous());
  const int64_t n = weight.size(0);
  const int64_t k = weight.size(1);
  TORCH_CHECK(x.dim() > 0 && x.size(-1) == k, "shapes ", x.sizes(), " and ", weight.sizes(), " do not meet in a layer");
  TORCH_CHECK(!bias || bias->numel() == n, "a bias of shape ", bias->sizes(), " for ", n, " outputs");
  TORCH_CHECK(weight.scalar_type() == x.scalar_type() && (!bias || bias->scalar_type() == x.scalar_type()),
              "a layer's input, weight and bias are of one type");
  auto shape = x.sizes().vec();
  shape.back() = n;
  return {x, weight.contiguous(), bias, k == 0 ? 0 : x.numel() / k, n, k, shape};
}

/// Empty products are ATen's as well, and in fp32 those of few rows: oneDNN sums such in another order than the same rows among more, which
/// would tell the lanes of a batch from the whole.
template <class T>
bool ownProduct(const Tensor& rows, const Tensor& weight) {
  if (rows.numel() == 0 || weight.numel() == 0) return false;
  const bool few = std::is_same<T, float>::value && rows.numel() / rows.size(-1) < fewestRows;
  return !few && multiplies<T>();
}

/// Where a product's sums may lie: in the result if that is fp32, else in scratch memory.
float* sumsIn(float* result) { return result; }
float* sumsIn(c10::BFloat16*) { return nullptr; }

/// finish(at, left, x·wᵀ + b) by vectors of `lanes`: `at` is where the first element goes in the result, `left` how many the row still has.
template <class T, class Finish>
void applyLayer(const Layer& layer, T* result, Finish&& finish) {
  const T* bias = layer.bias ? layer.bias->template data_ptr<T>() : nullptr;
  const int64_t n = layer.n;
  const Factor<T> weight{layer.weight.data_ptr<T>(), layer.k, true};
  productOfRows(layer.rows, n, layer.k, layer.x.data_ptr<T>(), weight, sumsIn(result), [&](int64_t row, const float* sums) {
    for (int64_t i = 0; i < n; i += lanes) {
      const Floats sum = loadPart(sums + i, n - i);
      finish(row * n + i, n - i, bias == nullptr ? sum : sum + loadPart(bias + i, n - i));
    }
  });
}

// linear(x, weight, bias | null) -> y, all of one type
napi_value linear(Call& call) {
  const Layer layer = layerOf(call);
  return byStorage(layer.x, [&](auto zero) {
    using T = decltype(zero);
    if (!ownProduct<T>(layer.x, layer.weight)) return call.wrap(at::linear(layer.x, layer.weight, layer.bias));
    const Tensor y = at::empty(layer.outputShape, layer.x.options());
    T* to = y.data_ptr<T>();
    applyLayer(layer, to, [&](int64_t at, int64_t left, Floats sum) { storePart(to + at, sum, left); });
    return call.wrap(y);
  });
}

template <class Activation>
std::pair<Tensor, Tensor> activatedLayer(const Layer& layer, bool withSlope) {
  return byStorage(layer.x, [&](auto zero) -> std::pair<Tensor, Tensor> {
    using T = decltype(zero);
    if (!ownProduct<T>(layer.x, layer.weight)) return activated<Activation>(at::linear(layer.x, layer.weight, layer.bias), withSlope);
    const Tensor y = at::empty(layer.outputShape, layer.x.options());
    const Tensor slope = withSlope ? at::empty_like(y) : Tensor();
    T* to = y.data_ptr<T>();
    T* slopes = withSlope ? slope.data_ptr<T>() : nullptr;
    applyLayer(layer, to, [&](int64_t at, int64_t left, Floats sum) {
      const Curve curve = Activation::at(sum);
      storePart(to + at, curve.value, left);
      if (withSlope) storePart(slopes + at, curve.slope, left);
    });
    return {y, slope};
  });
}

// linearGelu(x, weight, bias | null, quick, withSlope) -> [gelu(x·wᵀ + b), slope | null]
napi_value linearGelu(Call& call) {
  const Layer layer = layerOf(call);
  const bool withSlope = call.boolean(4);
  const auto [y, slope] = call.boolean(3) ? activatedLayer<QuickGelu>(layer, withSlope) : activatedLayer<Gelu>(layer, withSlope);
  return call.wrap({y, slope});
}

/// dy·w, times `slope` where that is defined
Tensor inputGradient(const Tensor& upstream, const Tensor& weight, const Tensor& slope) {
  requireWeight(weight);
  const Tensor dy = likeIn(upstream, weight);
  const int64_t n = weight.size(1);
  const int64_t k = weight.size(0);
  TORCH_CHECK(dy.dim() > 0 && dy.size(-1) == k, "a gradient of shape ", dy.sizes(), " is not of a layer ", weight.sizes());
  auto shape = dy.sizes().vec();
  shape.back() = n;
  TORCH_CHECK(!slope.defined() || (slope.sizes().equals(shape) && slope.scalar_type() == dy.scalar_type()), "a slope of shape ", slope.sizes(),
              " for inputs of a layer ", weight.sizes());
  return byStorage(dy, [&](auto zero) -> Tensor {
    using T = decltype(zero);
    if (!ownProduct<T>(dy, weight)) {
      const Tensor dx = at::mm(dy.view({-1, k}), weight).view(shape);
      return slope.defined() ? timesSlope(dx, slope) : dx;
    }
    const Tensor w = weight.contiguous();
    const Tensor dx = at::empty(shape, dy.options());
    T* to = dx.data_ptr<T>();
    const T* slopes = slope.defined() ? slope.data_ptr<T>() : nullptr;
    const Factor<T> factor{w.data_ptr<T>(), n};
    productOfRows(dy.numel() / k, n, k, dy.data_ptr<T>(), factor, sumsIn(to), [&](int64_t row, const float* sums) {
      if (slopes == nullptr && sumsIn(to) != nullptr) return;  // they lie where they belong
      for (int64_t i = 0; i < n; i += lanes) {
        const Floats sum = loadPart(sums + i, n - i);
        storePart(to + row * n + i, slopes == nullptr ? sum : sum * loadPart(slopes + row * n + i, n - i), n - i);
      }
    });
    return dx;
  });
}

// linearInputGradient(dy, weight) -> dx
napi_value linearInputGradient(Call& call) { return call.wrap(inputGradient(call.tensor(0), call.tensor(1), Tensor())); }

// geluLinearInputGradient(dy, weight, slope) -> dz: of linear(gelu(z)), whose slope at z is given
napi_value geluLinearInputGradient(Call& call) { return call.wrap(inputGradient(call.tensor(0), call.tensor(1), call.tensor(2))); }

// linearWeightGradient(dy, x) -> fp32 [O, I]
napi_value linearWeightGradient(Call& call) {
  const Tensor x = call.tensor(1).contiguous();
  const Tensor dy = likeIn(call.tensor(0), x);
  const int64_t n = dy.size(-1);
  const int64_t k = x.size(-1);
  TORCH_CHECK(dy.numel() * k == x.numel() * n, "a gradient of shape ", dy.sizes(), " has not the rows of an input ", x.sizes());
  return byStorage(x, [&](auto zero) {
    using T = decltype(zero);
    if (!ownProduct<T>(x, dy)) return call.wrap(at::mm(dy.view({-1, n}).t(), x.view({-1, k})).to(at::kFloat));
    const Tensor dw = at::empty({n, k}, at::kFloat);
    float* to = dw.data_ptr<float>();
    inPieces(n, [&](int64_t begin, int64_t end) {
      multiply(end - begin, k, x.numel() / k, Factor<T>{dy.data_ptr<T>() + begin, n, true}, Factor<T>{x.data_ptr<T>(), k}, to + begin * k);
    });
    return call.wrap(dw);
  });
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
  define(env, exports,
         {{"linear", entry<linear, generic::linear>},
          {"linearGelu", entry<linearGelu, generic::linearGelu>},
          {"linearInputGradient", entry<linearInputGradient, generic::linearInputGradient>},
          {"geluLinearInputGradient", entry<geluLinearInputGradient, generic::geluLinearInputGradient>},
          {"linearWeightGradient", entry<linearWeightGradient, generic::linearWeightGradient>},
          {"sumRows", entry<sumRows, generic::sumRows>}});
}
}  // namespace covey
