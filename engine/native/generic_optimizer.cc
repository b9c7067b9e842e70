// AdamW for any device as a few multi-tensor operators per group of parameters that share their rates; see generic.h.
#include <cmath>
#include <map>

#include "generic.h"

namespace covey::generic {
namespace {

struct Group {
  std::vector<Tensor> parameters, firsts, seconds, gradients;
};

struct Rule {
  double beta1, beta2, eps, step;
};

/// Loshchilov & Hutter 2019, Algorithm 2, in the rounding order of the own kernel.
void update(Group& g, const Rule& rule, double weightDecay, double rate) {
  at::_foreach_mul_(g.firsts, rule.beta1);
  at::_foreach_add_(g.firsts, g.gradients, 1 - rule.beta1);
  at::_foreach_mul_(g.seconds, rule.beta2);
  at::_foreach_addcmul_(g.seconds, g.gradients, g.gradients, 1 - rule.beta2);
  auto denominators = at::_foreach_sqrt(g.seconds);
  at::_foreach_mul_(denominators, 1 / std::sqrt(1 - std::pow(rule.beta2, rule.step)));
  at::_foreach_add_(denominators, rule.eps);
  at::_foreach_mul_(g.parameters, 1 - rate * weightDecay);
  at::_foreach_addcdiv_(g.parameters, g.firsts, denominators, -rate / (1 - std::pow(rule.beta1, rule.step)));
}

bool isArray(const Call& call, size_t index) {
  bool result = false;
  napi_is_array(call.env, call.values[index], &result);
  return result;
}

/// The gradients, scaled: from tensors, or from one host array that is uploaded once.
std::vector<Tensor> gradientsOf(const Call& call, const std::vector<Tensor>& parameters, double scale) {
  if (isArray(call, 3)) {
    const auto given = call.tensors(3);
    TORCH_CHECK(given.size() == parameters.size(), "adamW: ", given.size(), " gradients for ", parameters.size(), " parameters");
    return at::_foreach_mul(given, scale);
  }
  size_t length;
  const float* host = call.floats(3, &length);
  const auto offsets = call.numbers(5);
  TORCH_CHECK(offsets.size() == parameters.size(), "adamW: one offset per parameter is needed");
  const Tensor flat = upload(call.context->place, host, {static_cast<int64_t>(length)}, at::kFloat).mul_(scale);
  std::vector<Tensor> result;
  for (size_t i = 0; i < parameters.size(); i++) {
    const int64_t offset = static_cast<int64_t>(offsets[i]), size = parameters[i].numel();
    TORCH_CHECK(offset >= 0 && offset + size <= static_cast<int64_t>(length), "adamW: gradient has ", length, " elements, a parameter's are ", offset,
                " to ", offset + size);
    result.push_back(flat.narrow(0, offset, size).view(parameters[i].sizes()));
  }
  return result;
}

}  // namespace

napi_value adamW(Call& call) {
  const auto parameters = call.tensors(0), firsts = call.tensors(1), seconds = call.tensors(2);
  const auto halves = call.optionalTensors(6);
  const auto weightDecays = call.numbers(7), rates = call.numbers(8);
  const size_t count = parameters.size();
  TORCH_CHECK(firsts.size() == count && seconds.size() == count && weightDecays.size() == count && rates.size() == count && halves.size() == count,
              "adamW: one moment pair, weight decay, rate and bf16 copy (or null) per parameter are needed");
  const auto gradients = gradientsOf(call, parameters, call.number(4));
  const Rule rule{call.number(9), call.number(10), call.number(11), call.number(12)};
  std::map<std::pair<double, double>, Group> groups;
  for (size_t i = 0; i < count; i++) {
    TORCH_CHECK(parameters[i].scalar_type() == at::kFloat && parameters[i].is_contiguous(), "adamW: parameters must be contiguous float32, got ",
                parameters[i].scalar_type(), " ", parameters[i].sizes());
    Group& group = groups[{weightDecays[i], rates[i]}];
    group.parameters.push_back(parameters[i]);
    group.firsts.push_back(firsts[i]);
    group.seconds.push_back(seconds[i]);
    group.gradients.push_back(gradients[i]);
  }
  for (auto& [key, group] : groups) update(group, rule, key.first, key.second);
  for (size_t i = 0; i < count; i++) if (halves[i].defined()) halves[i].copy_(parameters[i]);
  return call.undefined();
}

napi_value averageInto(Call& call) {
  const auto averages = call.tensors(0), values = call.tensors(1);
  TORCH_CHECK(averages.size() == values.size(), "averageInto: ", averages.size(), " averages of ", values.size(), " tensors");
  for (size_t i = 0; i < averages.size(); i++) averages[i].add_(values[i] - averages[i], call.number(2));
  return call.undefined();
}

}  // namespace covey::generic
