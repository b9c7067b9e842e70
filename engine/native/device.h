// Where a context's tensors live, and the ways in and out. Only the device-generic interfaces of c10 are used, so that this compiles without
// CUDA headers; what they reach at run time is what the linked libtorch registered.
#pragma once
#include <ATen/ATen.h>
#include <c10/core/Stream.h>
#include <torch/version.h>

#if __has_include(<c10/util/Optional.h>)
#include <c10/util/Optional.h>
namespace covey { template <class T> using Optional = c10::optional<T>; }
#else
#include <optional>
namespace covey { template <class T> using Optional = std::optional<T>; }
#endif

/// Whether libtorch is this version or newer.
#define COVEY_TORCH_SINCE(major, minor) \
  (TORCH_VERSION_MAJOR > (major) || (TORCH_VERSION_MAJOR == (major) && TORCH_VERSION_MINOR >= (minor)))
/// GPUs need the generic allocator statistics and today's signatures of fused attention. Older libtorchs are for the CPU.
#define COVEY_TORCH_FOR_DEVICES COVEY_TORCH_SINCE(2, 9)

namespace covey {
/// A thread's device. On a GPU all kernels run on `compute`; large uploads run on `copies`, and `compute` waits for each of them.
struct Placement {
  c10::Device device{c10::DeviceType::CPU};
  Optional<c10::Stream> compute, copies;
  bool isCpu() const { return device.is_cpu(); }
  at::TensorOptions options(at::ScalarType type) const { return at::TensorOptions().dtype(type).device(device); }
};

/// A copy of host memory on the device, usable on the current stream at once; `data` may be reused when this returns.
at::Tensor upload(const Placement& place, const void* data, at::IntArrayRef shape, at::ScalarType type);
/// Overwrites a contiguous tensor's storage; ordered after what was queued before.
void uploadInto(const Placement& place, const void* data, const at::Tensor& target);
/// The values in contiguous host memory. On a GPU this waits for them: nothing else in the addon does.
at::Tensor download(const Placement& place, const at::Tensor& tensor);

/// Bytes of a GPU's tensors now, at most since the last reset, and reserved from the driver; of all threads that use it. Zeros elsewhere.
struct DeviceMemory {
  double live, peak, reserved;
};
DeviceMemory deviceMemory(const Placement& place);
void resetDevicePeak(const Placement& place);
}  // namespace covey
