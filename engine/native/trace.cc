// Traces of libtorch's own profiler (Kineto): on a GPU the kernels and copies as the card ran them, which the host's clock cannot tell.
#include "context.h"

#if COVEY_TORCH_FOR_DEVICES && __has_include(<torch/csrc/autograd/profiler_kineto.h>)
#include <torch/csrc/autograd/profiler_kineto.h>
#define COVEY_HAS_TRACE 1
#else
#define COVEY_HAS_TRACE 0
#endif

namespace covey {
namespace {

#if COVEY_HAS_TRACE
namespace profiler = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

// traceStart(): this thread's operators, and what any thread runs on the GPU
napi_value traceStart(Call& call) {
  std::set<ActivityType> activities{ActivityType::CPU};
  if (call.context->place.device.is_cuda()) activities.insert(ActivityType::CUDA);
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities, {at::RecordScope::FUNCTION, at::RecordScope::USER_SCOPE});
  return call.undefined();
}

// traceStop(file): writes the trace in Chrome's format
napi_value traceStop(Call& call) {
  profiler::disableProfiler()->save(call.text(0));
  return call.undefined();
}
#else
napi_value traceStart(Call&) { throw std::runtime_error("traces need libtorch 2.9 or newer with Kineto's headers, this is " COVEY_TORCH_VERSION); }
napi_value traceStop(Call& call) { return traceStart(call); }
#endif

}  // namespace

void defineTrace(napi_env env, napi_value exports) {
  define(env, exports, {{"traceStart", entry<traceStart>}, {"traceStop", entry<traceStop>}});
}
}  // namespace covey
