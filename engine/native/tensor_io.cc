// Tensors to and from JavaScript's memory.
#include <cstring>

#include "context.h"
#include "vector.h"

namespace covey {
namespace {

at::ScalarType scalarTypeOf(napi_typedarray_type type) {
  switch (type) {
    case napi_float32_array: return at::kFloat;
    case napi_int32_array: return at::kInt;
    case napi_uint8_array: case napi_uint8_clamped_array: return at::kByte;
    case napi_float64_array: return at::kDouble;
    case napi_bigint64_array: return at::kLong;
    case napi_int8_array: return at::kChar;
    case napi_int16_array: return at::kShort;
    default: throw std::runtime_error("unsupported kind of typed array");
  }
}

int64_t product(const std::vector<int64_t>& shape) {
  int64_t size = 1;
  for (int64_t side : shape) size *= side;
  return size;
}

// fromTyped(typedArray, shape, scalarType) -> handle of a copy
napi_value fromTyped(Call& call) {
  const TypedArray array = call.typedArray(0);
  const auto shape = call.integers(1);
  const auto target = static_cast<at::ScalarType>(call.integer(2));
  const auto source = scalarTypeOf(array.type);
  const int64_t size = product(shape);
  const bool interleaved = target == at::kComplexFloat && source == at::kFloat;
  if (size * (interleaved ? 2 : 1) != static_cast<int64_t>(array.length)) {
    throw std::runtime_error("typed array has " + std::to_string(array.length) + " elements, the shape needs " + std::to_string(size));
  }
  const Placement& place = call.context->place;
  if (!place.isCpu()) return call.wrap(upload(place, array.data, shape, interleaved ? target : source).to(target));
  Tensor result = at::empty(shape, at::TensorOptions().dtype(target));
  if (size > 0) {
    if (target == source || interleaved) {
      std::memcpy(result.data_ptr(), array.data, size * result.element_size());
    } else {
      result.copy_(at::from_blob(array.data, shape, at::TensorOptions().dtype(source)));
    }
  }
  return call.wrap(result);
}

// toTyped(handle) -> a fresh typed array
napi_value toTyped(Call& call) {
  Tensor tensor = call.tensor(0);
  switch (tensor.scalar_type()) {
    case at::kBFloat16: case at::kHalf: tensor = tensor.to(at::kFloat); break;
    case at::kLong: tensor = tensor.to(at::kInt); break;
    case at::kComplexFloat: tensor = at::view_as_real(tensor.resolve_conj()); break;
    default: break;
  }
  napi_typedarray_type type;
  switch (tensor.scalar_type()) {
    case at::kFloat: type = napi_float32_array; break;
    case at::kInt: type = napi_int32_array; break;
    case at::kBool: case at::kByte: type = napi_uint8_array; break;
    case at::kDouble: type = napi_float64_array; break;
    default: throw std::runtime_error(std::string("cannot read back a tensor of type ") + c10::toString(tensor.scalar_type()));
  }
  tensor = download(call.context->place, tensor);
  void* memory;
  napi_value buffer, result;
  const size_t bytes = tensor.numel() * tensor.element_size();
  if (napi_create_arraybuffer(call.env, bytes, &memory, &buffer) != napi_ok) throw std::runtime_error("cannot allocate an ArrayBuffer");
  if (bytes > 0) std::memcpy(memory, tensor.data_ptr(), bytes);
  napi_create_typedarray(call.env, type, tensor.numel(), buffer, 0, &result);
  return result;
}

/// A contiguous fp32 view or copy on the host whose length was checked.
Tensor floatsOf(const Call& call, size_t length, const char* what) {
  const Tensor tensor = download(call.context->place, call.tensor(0));
  requireFloating(tensor, what);
  TORCH_CHECK(static_cast<size_t>(tensor.numel()) == length, what, ": tensor has ", tensor.numel(), " elements, the array ", length);
  return tensor.to(at::kFloat).contiguous();
}

/// Runs body(begin, end) over elements that do not depend on each other.
template <class F>
void inPieces(size_t length, F&& body) { at::parallel_for(0, static_cast<int64_t>(length), 1 << 16, body); }

// readInto(handle, Float32Array)
napi_value readInto(Call& call) {
  size_t length;
  float* target = call.floats(1, &length);
  const Tensor source = floatsOf(call, length, "readInto");
  const float* from = source.data_ptr<float>();
  inPieces(length, [&](int64_t begin, int64_t end) { std::memcpy(target + begin, from + begin, (end - begin) * sizeof(float)); });
  return call.undefined();
}

// addInto(handle, Float32Array)
napi_value addInto(Call& call) {
  size_t length;
  float* target = call.floats(1, &length);
  const Tensor source = floatsOf(call, length, "addInto");
  const float* from = source.data_ptr<float>();
  inPieces(length, [&](int64_t begin, int64_t end) { addVectors(target + begin, from + begin, end - begin); });
  return call.undefined();
}

// writeFrom(handle, Float32Array): in place
napi_value writeFrom(Call& call) {
  size_t length;
  const float* source = call.floats(1, &length);
  const Tensor& target = call.tensor(0);
  TORCH_CHECK(target.scalar_type() == at::kFloat, "writeFrom: expected a float32 tensor, got ", target.scalar_type());
  TORCH_CHECK(target.is_contiguous() && static_cast<size_t>(target.numel()) == length, "writeFrom: tensor has ", target.numel(),
              " elements (contiguous: ", target.is_contiguous(), "), the array ", length);
  if (!target.device().is_cpu()) {
    uploadInto(call.context->place, source, target);
    return call.undefined();
  }
  float* to = target.data_ptr<float>();
  inPieces(length, [&](int64_t begin, int64_t end) { std::memcpy(to + begin, source + begin, (end - begin) * sizeof(float)); });
  return call.undefined();
}

napi_value shape(Call& call) {
  const Tensor& tensor = call.tensor(0);
  napi_value array;
  napi_create_array_with_length(call.env, tensor.dim(), &array);
  for (int64_t i = 0; i < tensor.dim(); i++) napi_set_element(call.env, array, i, call.wrapNumber(tensor.size(i)));
  return array;
}
napi_value scalarType(Call& call) { return call.wrapNumber(static_cast<int>(call.tensor(0).scalar_type())); }
napi_value release(Call& call) {
  call.context->release(call.integer(0));
  return call.undefined();
}
napi_value live(Call& call) { return call.wrapNumber(call.context->live); }
// castTo(handle, scalarType) -> handle; the same storage where nothing changes
napi_value castTo(Call& call) { return call.wrap(call.tensor(0).to(static_cast<at::ScalarType>(call.integer(1)))); }
// alias(handle) -> another handle to the same storage
napi_value alias(Call& call) { return call.wrap(call.tensor(0)); }

}  // namespace

void defineTensorIo(napi_env env, napi_value exports) {
  define(env, exports, {{"fromTyped", entry<fromTyped>}, {"toTyped", entry<toTyped>}, {"readInto", entry<readInto>},
                        {"addInto", entry<addInto>}, {"writeFrom", entry<writeFrom>}, {"shape", entry<shape>},
                        {"scalarType", entry<scalarType>}, {"release", entry<release>}, {"live", entry<live>},
                        {"castTo", entry<castTo>}, {"alias", entry<alias>}});
}
}  // namespace covey
