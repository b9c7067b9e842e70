// Devices, streams, transfers and memory of a thread's tensors; see device.h.
#include "device.h"

#include <ATen/Context.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#if COVEY_TORCH_FOR_DEVICES
#include <c10/core/CachingDeviceAllocator.h>
#endif

#include <cstdlib>
#include <cstring>
#include <limits>

#include "context.h"

namespace covey {
namespace {

/// Below this an upload is cheaper on the compute stream than the event that the other stream would need.
constexpr size_t ownStreamBytesMin = 64 << 10;

c10::DeviceIndex countOf(c10::DeviceType type) {
  if (type == c10::DeviceType::CPU) return 1;
  // A device type whose library is not linked registers no guard; one without driver counts none.
  return c10::impl::hasDeviceGuardImpl(type) ? c10::impl::getDeviceGuardImpl(type)->deviceCount() : 0;
}

/// Pinned where there is a GPU to copy to: its allocator keeps a block until the copies queued from it are done.
Tensor hostBuffer(const Placement& place, at::IntArrayRef shape, at::ScalarType type) {
  return at::empty(shape, at::TensorOptions().dtype(type).pinned_memory(place.device.is_cuda()));
}

Tensor staged(const Placement& place, const void* data, at::IntArrayRef shape, at::ScalarType type) {
  Tensor buffer = hostBuffer(place, shape, type);
  if (buffer.numel() > 0) std::memcpy(buffer.data_ptr(), data, buffer.nbytes());
  return buffer;
}

}  // namespace

Tensor upload(const Placement& place, const void* data, at::IntArrayRef shape, at::ScalarType type) {
  const Tensor buffer = staged(place, data, shape, type);
  if (place.isCpu()) return buffer;
  if (!place.copies || buffer.nbytes() < ownStreamBytesMin) return at::empty(shape, place.options(type)).copy_(buffer, true);
  Tensor result;
  c10::Event copied(place.device.type());
  {
    // Allocated on the copies' stream: a block that kernels still use is not handed out there.
    const c10::StreamGuard onCopies(*place.copies);
    result = at::empty(shape, place.options(type));
    result.copy_(buffer, true);
    copied.record(*place.copies);
  }
  copied.block(*place.compute);
  c10::impl::VirtualGuardImpl(place.device.type()).recordDataPtrOnStream(result.storage().data_ptr(), *place.compute);
  return result;
}

void uploadInto(const Placement& place, const void* data, const Tensor& target) {
  target.copy_(staged(place, data, target.sizes(), target.scalar_type()), true);
}

Tensor download(const Placement& place, const Tensor& tensor) {
  if (tensor.device().is_cpu()) return tensor.contiguous();
  if (!place.compute) return tensor.contiguous().cpu();
  const Tensor buffer = hostBuffer(place, tensor.sizes(), tensor.scalar_type());
  buffer.copy_(tensor, true);
  c10::impl::VirtualGuardImpl(place.device.type()).synchronizeStream(*place.compute);
  return buffer;
}

namespace {

/// "cuda", "cpu" or another name of libtorch's, and a number.
c10::Device deviceAt(const Call& call) { return c10::Device(c10::Device(call.text(0)).type(), static_cast<c10::DeviceIndex>(call.integer(1))); }

// deviceCount(name) -> devices that this addon could use
napi_value deviceCount(Call& call) {
  const auto type = c10::Device(call.text(0)).type();
  return call.wrapNumber(type == c10::DeviceType::CPU || COVEY_TORCH_FOR_DEVICES ? countOf(type) : 0);
}

// setDevice(name, index): where this thread's tensors are made from now on. Other tensors must be gone.
napi_value setDevice(Call& call) {
  Context& context = *call.context;
  const std::string name = call.text(0);
  if (name == "cpu") {
    context.place = Placement();
    context.generic = false;
    return call.undefined();
  }
  Placement place;
  place.device = deviceAt(call);
  // The meta device holds shapes only: it needs no driver, and shows where an op forgets its device.
  if (place.device.type() == c10::DeviceType::Meta) place.device = c10::Device(c10::DeviceType::Meta);
  else {
    TORCH_CHECK(COVEY_TORCH_FOR_DEVICES, "GPUs need libtorch 2.9 or newer, this is " COVEY_TORCH_VERSION);
    TORCH_CHECK(place.device.index() >= 0 && place.device.index() < countOf(place.device.type()), "there is no device ", place.device.str(), " among ",
                static_cast<int>(countOf(place.device.type())));
#if COVEY_TORCH_FOR_DEVICES
    at::globalContext().lazyInitDevice(place.device.type());
#endif
    const c10::impl::VirtualGuardImpl guard(place.device.type());
    guard.setDevice(place.device);
    place.compute = guard.getStreamFromGlobalPool(place.device, true);
    place.copies = guard.getStreamFromGlobalPool(place.device, false);
    guard.exchangeStream(*place.compute);
  }
  context.place = place;
  context.generic = true;
  return call.undefined();
}

// setDeviceMath(tf32, deterministic): process-wide settings of products on GPUs
napi_value setDeviceMath(Call& call) {
  at::Context& context = at::globalContext();
  const bool tf32 = call.boolean(0), deterministic = call.boolean(1);
  context.setAllowTF32CuBLAS(tf32);
  context.setAllowTF32CuDNN(tf32);
  // cuBLAS reads this when it makes its handles; libtorch refuses deterministic products without it.
  if (deterministic) setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", 0);
  context.setDeterministicAlgorithms(deterministic, false);
  context.setDeterministicCuDNN(deterministic);
  context.setBenchmarkCuDNN(!deterministic);
#if COVEY_TORCH_FOR_DEVICES
  // Filling what `empty` returns is for debugging: no kernel of ours reads what it did not write.
  context.setDeterministicFillUninitializedMemory(false);
#endif
  return call.undefined();
}

// setGeneric(on): whether this thread's calls go to the compositions; on a GPU they always do
napi_value setGeneric(Call& call) {
  call.context->generic = call.boolean(0) || !call.context->place.isCpu();
  return call.undefined();
}

// synchronize(): waits until the device has done what was queued
napi_value synchronize(Call& call) {
  const Placement& place = call.context->place;
  if (place.compute) c10::impl::VirtualGuardImpl(place.device.type()).synchronizeStream(*place.compute);
  return call.undefined();
}

napi_value device(Call& call) { return call.wrapText(call.context->place.device.str()); }

}  // namespace

DeviceMemory deviceMemory(const Placement& place) {
#if COVEY_TORCH_FOR_DEVICES
  if (place.compute) {
    const auto stats = c10::getDeviceAllocator(place.device.type())->getDeviceStats(place.device.index());
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    return {static_cast<double>(stats.allocated_bytes[all].current), static_cast<double>(stats.allocated_bytes[all].peak),
            static_cast<double>(stats.reserved_bytes[all].current)};
  }
#endif
  return {0, 0, 0};
}

void resetDevicePeak(const Placement& place) {
#if COVEY_TORCH_FOR_DEVICES
  if (place.compute) c10::getDeviceAllocator(place.device.type())->resetPeakStats(place.device.index());
#endif
}

void defineDevice(napi_env env, napi_value exports) {
  define(env, exports, {{"deviceCount", entry<deviceCount>}, {"setDevice", entry<setDevice>}, {"setDeviceMath", entry<setDeviceMath>},
                        {"setGeneric", entry<setGeneric>}, {"synchronize", entry<synchronize>}, {"device", entry<device>}});
}
}  // namespace covey
