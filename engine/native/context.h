// One Context per environment (main thread or worker): slots for tensors, looked-up operators, argument access, error translation.
#pragma once
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <node_api.h>

#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "device.h"
#include "profile.h"

namespace covey {
using at::Tensor;

/// How a JavaScript value becomes an operator's argument; classified once per operator.
enum class ArgumentKind : uint8_t {
  tensor, optionalTensor, tensorList, optionalTensorList, integer, integerList, floating, floatingList, boolean, booleanList, scalar, text,
  device, generator
};
struct Argument {
  ArgumentKind kind;
  bool optional;
  bool hasDefault;
  int fixedLength;
  c10::IValue defaultValue;
};
struct Operator {
  c10::OperatorHandle handle;
  std::vector<Argument> arguments;
  std::string name;
};

struct Context {
  std::vector<Tensor> slots;
  std::vector<uint32_t> freeSlots;
  size_t live = 0;
  std::vector<Operator> operators;
  torch::jit::Stack stack;
  /// Shared with JavaScript: rank and shape of the last tensor a `call` returned first, so that no array has to be built.
  int32_t* meta = nullptr;
  napi_ref metaReference = nullptr;
  Profile profile;
  Placement place;
  /// Calls go to the compositions of generic.h: on a GPU, in fp64, and where a test asks for it.
  bool generic = false;

  uint32_t put(Tensor tensor);
  const Tensor& get(int64_t handle) const;
  void release(int64_t handle);
  void noteShape(const Tensor& tensor);
};

/// A typed array's memory; valid during the call.
struct TypedArray {
  napi_typedarray_type type;
  size_t length;
  void* data;
};

/// The arguments of one call from JavaScript.
struct Call {
  static constexpr size_t argumentsMax = 24;
  napi_env env;
  Context* context;
  size_t count = argumentsMax;
  napi_value values[argumentsMax];

  bool isNull(size_t index) const;
  double number(size_t index) const;
  int64_t integer(size_t index) const { return static_cast<int64_t>(number(index)); }
  bool boolean(size_t index) const;
  std::string text(size_t index) const;
  const Tensor& tensor(size_t index) const {
    const Tensor& found = context->get(integer(index));
    if (context->profile.on) context->profile.noteInput(index, found);
    return found;
  }
  std::vector<Tensor> tensors(size_t index) const;
  /// Undefined where an element is null.
  std::vector<Tensor> optionalTensors(size_t index) const;
  std::vector<double> numbers(size_t index) const;
  std::vector<int64_t> integers(size_t index) const;
  TypedArray typedArray(size_t index) const;
  /// The memory of a Float32Array.
  float* floats(size_t index, size_t* length) const;

  napi_value undefined() const;
  napi_value wrap(Tensor tensor) const;
  napi_value wrap(const std::vector<Tensor>& tensors) const;
  napi_value wrapNumber(double value) const;
  napi_value wrapText(const std::string& value) const;
};

bool isNullish(napi_env env, napi_value value);
double toNumber(napi_env env, napi_value value);
std::string toText(napi_env env, napi_value value);
std::vector<int64_t> toIntegers(napi_env env, napi_value value, int fixedLength);

using Body = napi_value (*)(Call&);
void throwToJs(napi_env env, const char* message);

/// Adapts a body to N-API: no autograd, C++ errors become JavaScript exceptions, a running profile sees the call under its name. Where an own
/// kernel has a device-independent twin, the context says which runs.
template <Body body, Body generic = body>
napi_value entry(napi_env env, napi_callback_info info) {
  Call call{env, nullptr, Call::argumentsMax, {}};
  void* data = nullptr;
  void* name = nullptr;
  napi_get_instance_data(env, &data);
  call.context = static_cast<Context*>(data);
  napi_get_cb_info(env, info, &call.count, call.values, nullptr, &name);
  try {
    at::AutoDispatchBelowADInplaceOrView noAutograd;
    const ProfiledCall profiled(call.context->profile, static_cast<const char*>(name));
    return call.context->generic ? generic(call) : body(call);
  } catch (const c10::Error& error) {
    throwToJs(env, error.what_without_backtrace());
  } catch (const std::exception& error) {
    throwToJs(env, error.what());
  }
  return nullptr;
}

/// Bytes that CPU tensors of this process hold now, and at most since the last reset (allocator.cc).
struct CpuMemory {
  int64_t live, peak;
};
CpuMemory cpuMemory();
void resetCpuPeak();

struct Function {
  /// A literal: it is kept by address.
  const char* name;
  napi_callback callback;
};
void define(napi_env env, napi_value exports, std::initializer_list<Function> functions);

// One per file.
void installAllocator();
void defineAllocator(napi_env, napi_value exports);
void defineDispatcher(napi_env, napi_value exports);
void defineTensorIo(napi_env, napi_value exports);
void defineHostMath(napi_env, napi_value exports);
void defineOptimizer(napi_env, napi_value exports);
void defineLayerwise(napi_env, napi_value exports);
void defineLinear(napi_env, napi_value exports);
void defineLayerNorm(napi_env, napi_value exports);
void defineActivation(napi_env, napi_value exports);
void defineAttention(napi_env, napi_value exports);
void defineTokens(napi_env, napi_value exports);
void defineConv(napi_env, napi_value exports);
void defineBatchNorm(napi_env, napi_value exports);
void definePool(napi_env, napi_value exports);
void defineProfile(napi_env, napi_value exports);
void defineDevice(napi_env, napi_value exports);
void defineTrace(napi_env, napi_value exports);

/// Own kernels read plain CPU memory.
inline void requireCpu(const Tensor& tensor, const char* what) {
  TORCH_CHECK(tensor.device().is_cpu(), what, ": expected a CPU tensor, got one on ", tensor.device().str());
}
inline void requireFloating(const Tensor& tensor, const char* what) {
  requireCpu(tensor, what);
  TORCH_CHECK(tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16, what, ": expected float32 or bfloat16, got ",
              tensor.scalar_type());
}
inline Tensor likeIn(const Tensor& tensor, const Tensor& model) {
  return tensor.scalar_type() == model.scalar_type() ? tensor.contiguous() : tensor.to(model.scalar_type()).contiguous();
}
/// Runs f<float>() or f<at::BFloat16>() by storage type.
template <class F>
auto byStorage(const Tensor& tensor, F&& f) {
  if (tensor.scalar_type() == at::kBFloat16) return f(at::BFloat16{});
  return f(float{});
}
}  // namespace covey
