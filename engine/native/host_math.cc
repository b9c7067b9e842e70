// Sums and digests over plain memory. host-math.ts does the same in JavaScript, bit for bit.
#include "context.h"
#include "vector.h"

namespace covey {
namespace {

constexpr size_t sumBlock = 4096;
constexpr size_t sumLanes = 8;
constexpr size_t digestStreams = 16;

// sumOfSquares(Float32Array) -> fp64: blocks of 4,096 in order, each in eight interleaved sums added in order
napi_value sumOfSquares(Call& call) {
  size_t length;
  const float* values = call.floats(0, &length);
  double total = 0;
  for (size_t block = 0; block < length; block += sumBlock) {
    const size_t end = std::min(length, block + sumBlock);
    double sums[sumLanes] = {};
    size_t i = block;
    for (; i + sumLanes <= end; i += sumLanes) {
      for (size_t lane = 0; lane < sumLanes; lane++) sums[lane] += static_cast<double>(values[i + lane]) * static_cast<double>(values[i + lane]);
    }
    for (size_t lane = 0; i < end; i++, lane++) sums[lane] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
    for (const double sum : sums) total += sum;
  }
  return call.wrapNumber(total);
}

// addVectors(target, source): target += source
napi_value addVectorsInto(Call& call) {
  size_t targetLength, sourceLength;
  float* target = call.floats(0, &targetLength);
  const float* source = call.floats(1, &sourceLength);
  TORCH_CHECK(targetLength == sourceLength, "addVectors: lengths differ: ", targetLength, " and ", sourceLength);
  addVectors(target, source, static_cast<int64_t>(targetLength));
  return call.undefined();
}

uint32_t rotate(uint32_t value, int bits) { return (value << bits) | (value >> (32 - bits)); }
/// One word into a stream (body of MurmurHash3_x86_32); invertible in both, so a single changed bit always shows.
uint32_t absorb(uint32_t hash, uint32_t word) {
  return rotate(hash ^ (rotate(word * 0xcc9e2d51u, 15) * 0x1b873593u), 13) * 5u + 0xe6546b64u;
}
uint32_t finish(uint32_t hash) {
  hash = (hash ^ (hash >> 16)) * 0x85ebca6bu;
  hash = (hash ^ (hash >> 13)) * 0xc2b2ae35u;
  return hash ^ (hash >> 16);
}

// digest(handles) -> 16 hex digits over the float32 bits and the lengths, in order
napi_value digest(Call& call) {
  uint32_t streams[digestStreams];
  for (size_t i = 0; i < digestStreams; i++) streams[i] = static_cast<uint32_t>(i) * 0x9e3779b9u;
  for (const Tensor& tensor : call.tensors(0)) {
    const Tensor values = download(call.context->place, tensor.to(at::kFloat).contiguous());
    const auto* words = reinterpret_cast<const uint32_t*>(values.data_ptr<float>());
    const size_t length = static_cast<size_t>(values.numel());
    streams[0] = absorb(streams[0], static_cast<uint32_t>(length));
    size_t i = 0;
    for (; i + digestStreams <= length; i += digestStreams) {
      for (size_t s = 0; s < digestStreams; s++) streams[s] = absorb(streams[s], words[i + s]);
    }
    for (size_t s = 0; i < length; i++, s++) streams[s] = absorb(streams[s], words[i]);
  }
  uint32_t low = 0, high = 0x5bd1e995u;
  for (const uint32_t stream : streams) {
    low = absorb(low, stream);
    high = absorb(high, finish(stream));
  }
  char text[17];
  std::snprintf(text, sizeof(text), "%08x%08x", finish(high), finish(low));
  return call.wrapText(text);
}

}  // namespace

void defineHostMath(napi_env env, napi_value exports) {
  define(env, exports, {{"sumOfSquares", entry<sumOfSquares>}, {"addVectors", entry<addVectorsInto>}, {"digest", entry<digest>}});
}
}  // namespace covey
