// The addon's entry: one Context per environment, so that every worker thread has its own slots.
#include "context.h"

namespace covey {
void defineSimilarity(napi_env, napi_value exports);

namespace {

// setThreads(count) -> threads in effect for this thread's kernels
napi_value setThreads(Call& call) {
  at::set_num_threads(static_cast<int>(call.integer(0)));
  return call.wrapNumber(at::get_num_threads());
}

napi_value describe(Call& call) {
  return call.wrapText(std::string("libtorch ") + COVEY_TORCH_VERSION);
}

void shareMeta(napi_env env, napi_value exports, Context* context) {
  void* memory;
  napi_value buffer, array;
  napi_create_arraybuffer(env, 64, &memory, &buffer);
  context->meta = static_cast<int32_t*>(memory);
  napi_create_typedarray(env, napi_int32_array, 16, buffer, 0, &array);
  napi_create_reference(env, buffer, 1, &context->metaReference);
  napi_set_named_property(env, exports, "meta", array);
}

void deleteContext(napi_env, void* data, void*) { delete static_cast<Context*>(data); }

}  // namespace
}  // namespace covey

NAPI_MODULE_INIT() {
  using namespace covey;
  auto* context = new Context;
  context->stack.reserve(32);
  napi_set_instance_data(env, context, deleteContext, nullptr);
  installAllocator();
  shareMeta(env, exports, context);
  define(env, exports, {{"setThreads", entry<setThreads>}, {"describe", entry<describe>}});
  defineAllocator(env, exports);
  defineDispatcher(env, exports);
  defineTensorIo(env, exports);
  defineHostMath(env, exports);
  defineOptimizer(env, exports);
  defineLayerwise(env, exports);
  defineLinear(env, exports);
  defineLayerNorm(env, exports);
  defineActivation(env, exports);
  defineAttention(env, exports);
  defineTokens(env, exports);
  defineConv(env, exports);
  defineBatchNorm(env, exports);
  definePool(env, exports);
  defineProfile(env, exports);
  defineDevice(env, exports);
  defineTrace(env, exports);
  defineSimilarity(env, exports);
  return exports;
}
