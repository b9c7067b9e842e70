// Counts the bytes that CPU tensors hold. Blocks come from glibc's heap, which keepFreedMemory() makes hold on to what a step frees;
// an arena of our own with huge pages was tried and gained nothing (docs/decisions/0006).
#include <c10/core/CPUAllocator.h>
#include <malloc.h>
#include <torch/version.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>

#include "context.h"

namespace covey {
namespace {

constexpr size_t alignment = 64;
std::atomic<int64_t> live{0};
std::atomic<int64_t> peak{0};

/// Aligned by hand: glibc's memalign asks for more than it returns, so that a freed block never fits the next request of its own size, and a
/// step that repeats the same sizes scatters itself over a growing heap. The word before the block says where it begins.
void* allocateAligned(size_t size) {
  void* base = std::malloc(size + alignment);
  if (base == nullptr) return nullptr;
  const auto after = reinterpret_cast<uintptr_t>(base) + sizeof(void*);
  void** block = reinterpret_cast<void**>((after + alignment - 1) / alignment * alignment);
  block[-1] = base;
  return block;
}

void* baseOf(void* block) { return static_cast<void**>(block)[-1]; }

void deallocate(void* block) {
  if (block == nullptr) return;
  live.fetch_sub(static_cast<int64_t>(malloc_usable_size(baseOf(block))), std::memory_order_relaxed);
  std::free(baseOf(block));
}

struct CountingAllocator final : c10::Allocator {
#if TORCH_VERSION_MAJOR >= 2
  c10::DataPtr allocate(size_t size) override { return block(size); }
  void copy_data(void* target, const void* source, size_t size) const override { std::memcpy(target, source, size); }
#else
  c10::DataPtr allocate(size_t size) const override { return block(size); }
#endif
  c10::DeleterFnPtr raw_deleter() const override { return &deallocate; }

 private:
  static c10::DataPtr block(size_t size) {
    void* memory = nullptr;
    if (size > 0) {
      memory = allocateAligned(size);
      if (memory == nullptr) {
        throw std::runtime_error("out of memory: cannot allocate " + std::to_string(size) + " bytes for a tensor; use a smaller batch or model");
      }
      const auto held = static_cast<int64_t>(malloc_usable_size(baseOf(memory)));
      const int64_t now = live.fetch_add(held, std::memory_order_relaxed) + held;
      int64_t seen = peak.load(std::memory_order_relaxed);
      while (now > seen && !peak.compare_exchange_weak(seen, now, std::memory_order_relaxed)) continue;
    }
    return {memory, memory, &deallocate, c10::Device(c10::DeviceType::CPU)};
  }
};

/// Freed activations stay in the heap for the next step instead of going back to the kernel, which would clear each page again.
void keepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max());  // ResNet-50 frees a gigabyte between its peak and the step's end
  mallopt(M_TOP_PAD, 64 << 20);
}

DeviceMemory hostMemory() {
  const struct mallinfo2 heap = mallinfo2();
  return {static_cast<double>(live.load()), static_cast<double>(peak.load()), static_cast<double>(heap.arena + heap.hblkhd)};
}

// memoryStats() -> Float64Array [live, peak, reserved] bytes: of the context's GPU; on the CPU of tensors in this process now and at most since
// the last reset, and of the heap they come from
napi_value memoryStats(Call& call) {
  const Placement& place = call.context->place;
  const DeviceMemory of = place.isCpu() ? hostMemory() : deviceMemory(place);
  const double values[3] = {of.live, of.peak, of.reserved};
  void* memory;
  napi_value buffer, array;
  napi_create_arraybuffer(call.env, sizeof values, &memory, &buffer);
  std::memcpy(memory, values, sizeof values);
  napi_create_typedarray(call.env, napi_float64_array, 3, buffer, 0, &array);
  return array;
}

// resetPeakMemory(): the peak starts again from what is live
napi_value resetPeakMemory(Call& call) {
  resetCpuPeak();
  resetDevicePeak(call.context->place);
  return call.undefined();
}

}  // namespace

CpuMemory cpuMemory() { return {live.load(), peak.load()}; }
void resetCpuPeak() { peak.store(live.load()); }

/// Once per process: libtorch's CPU allocator is process-wide. Tensors made before keep their own deleter.
void installAllocator() {
  static CountingAllocator allocator;
  static std::once_flag once;
  std::call_once(once, [] {
    keepFreedMemory();
    c10::SetCPUAllocator(&allocator, 1);
  });
}

void defineAllocator(napi_env env, napi_value exports) {
  define(env, exports, {{"memoryStats", entry<memoryStats>}, {"resetPeakMemory", entry<resetPeakMemory>}});
}
}  // namespace covey
