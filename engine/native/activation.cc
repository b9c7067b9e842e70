// GELU in its exact and its sigmoid form, and storage conversions of whole tensors.
#include "activation.h"

#include "generic.h"

namespace covey {
namespace {

// gelu(x, quick, withSlope) -> [y, slope | null]
napi_value gelu(Call& call) {
  requireFloating(call.tensor(0), "gelu");
  const Tensor x = call.tensor(0).contiguous();
  const bool withSlope = call.boolean(2);
  const auto [y, slope] = call.boolean(1) ? activated<QuickGelu>(x, withSlope) : activated<Gelu>(x, withSlope);
  return call.wrap({y, slope});
}

// geluGradient(dy, slope) -> dx
napi_value geluGradient(Call& call) {
  const Tensor& slope = call.tensor(1);
  const Tensor dy = likeIn(call.tensor(0), slope);
  return call.wrap(timesSlope(dy, slope));
}

}  // namespace

void defineActivation(napi_env env, napi_value exports) {
  define(env, exports, {{"gelu", entry<gelu, generic::gelu>}, {"geluGradient", entry<geluGradient, generic::geluGradient>}});
}
}  // namespace covey
