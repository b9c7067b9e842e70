#include "context.h"

namespace covey {

uint32_t Context::put(Tensor tensor) {
  live++;
  if (!freeSlots.empty()) {
    const uint32_t index = freeSlots.back();
    freeSlots.pop_back();
    slots[index] = std::move(tensor);
    return index;
  }
  slots.push_back(std::move(tensor));
  return static_cast<uint32_t>(slots.size() - 1);
}

const Tensor& Context::get(int64_t handle) const {
  if (handle < 0 || static_cast<size_t>(handle) >= slots.size() || !slots[handle].defined()) {
    throw std::runtime_error("invalid or released tensor handle " + std::to_string(handle));
  }
  return slots[handle];
}

void Context::release(int64_t handle) {
  get(handle);
  slots[handle] = Tensor();
  freeSlots.push_back(static_cast<uint32_t>(handle));
  live--;
}

void Context::noteShape(const Tensor& tensor) {
  const int64_t rank = std::min<int64_t>(tensor.dim(), 12);
  meta[0] = static_cast<int32_t>(rank);
  for (int64_t i = 0; i < rank; i++) meta[1 + i] = static_cast<int32_t>(tensor.size(i));
}

bool isNullish(napi_env env, napi_value value) {
  napi_valuetype type;
  napi_typeof(env, value, &type);
  return type == napi_null || type == napi_undefined;
}

double toNumber(napi_env env, napi_value value) {
  double number;
  if (napi_get_value_double(env, value, &number) != napi_ok) throw std::runtime_error("expected a number");
  return number;
}

std::string toText(napi_env env, napi_value value) {
  size_t length;
  if (napi_get_value_string_utf8(env, value, nullptr, 0, &length) != napi_ok) throw std::runtime_error("expected a string");
  std::string text(length, 0);
  napi_get_value_string_utf8(env, value, &text[0], length + 1, &length);
  return text;
}

template <class T, class F>
static std::vector<T> toVector(napi_env env, napi_value value, F&& element) {
  bool isArray = false;
  napi_is_array(env, value, &isArray);
  if (!isArray) throw std::runtime_error("expected an array");
  uint32_t length;
  napi_get_array_length(env, value, &length);
  std::vector<T> result(length);
  for (uint32_t i = 0; i < length; i++) {
    napi_value item;
    napi_get_element(env, value, i, &item);
    result[i] = element(item);
  }
  return result;
}

std::vector<int64_t> toIntegers(napi_env env, napi_value value, int fixedLength) {
  bool isArray = false;
  napi_is_array(env, value, &isArray);
  if (!isArray) return std::vector<int64_t>(fixedLength > 0 ? fixedLength : 1, static_cast<int64_t>(toNumber(env, value)));
  return toVector<int64_t>(env, value, [&](napi_value item) { return static_cast<int64_t>(toNumber(env, item)); });
}

bool Call::isNull(size_t index) const { return index >= count || isNullish(env, values[index]); }
double Call::number(size_t index) const {
  if (index >= count) throw std::runtime_error("missing argument " + std::to_string(index));
  return toNumber(env, values[index]);
}
bool Call::boolean(size_t index) const {
  bool value = false;
  if (index >= count || napi_get_value_bool(env, values[index], &value) != napi_ok) throw std::runtime_error("expected a boolean");
  if (context->profile.on) context->profile.noteFlag(index, value);
  return value;
}
std::string Call::text(size_t index) const { return toText(env, values[index]); }
std::vector<Tensor> Call::tensors(size_t index) const {
  auto list = toVector<Tensor>(env, values[index], [&](napi_value item) { return context->get(static_cast<int64_t>(toNumber(env, item))); });
  if (context->profile.on) for (const Tensor& tensor : list) context->profile.noteInput(tensor);
  return list;
}
std::vector<Tensor> Call::optionalTensors(size_t index) const {
  return toVector<Tensor>(env, values[index], [&](napi_value item) {
    return isNullish(env, item) ? Tensor() : context->get(static_cast<int64_t>(toNumber(env, item)));
  });
}
std::vector<double> Call::numbers(size_t index) const {
  return toVector<double>(env, values[index], [&](napi_value item) { return toNumber(env, item); });
}
std::vector<int64_t> Call::integers(size_t index) const { return toIntegers(env, values[index], 0); }

static size_t elementBytes(napi_typedarray_type type) {
  switch (type) {
    case napi_int8_array: case napi_uint8_array: case napi_uint8_clamped_array: return 1;
    case napi_int16_array: case napi_uint16_array: return 2;
    case napi_int32_array: case napi_uint32_array: case napi_float32_array: return 4;
    default: return 8;
  }
}

TypedArray Call::typedArray(size_t index) const {
  TypedArray array{};
  size_t offset;
  napi_value buffer;
  if (index >= count ||
      napi_get_typedarray_info(env, values[index], &array.type, &array.length, &array.data, &buffer, &offset) != napi_ok) {
    throw std::runtime_error("expected a typed array");
  }
  if (context->profile.on) context->profile.noteHostArray(index, elementBytes(array.type), array.length);
  return array;
}

float* Call::floats(size_t index, size_t* length) const {
  const TypedArray array = typedArray(index);
  if (array.type != napi_float32_array) throw std::runtime_error("expected a Float32Array");
  *length = array.length;
  return static_cast<float*>(array.data);
}

napi_value Call::undefined() const {
  napi_value value;
  napi_get_undefined(env, &value);
  return value;
}
napi_value Call::wrap(Tensor tensor) const {
  napi_value value;
  if (!tensor.defined()) {
    napi_get_null(env, &value);
  } else {
    if (context->profile.on) context->profile.noteOutput(tensor);
    napi_create_uint32(env, context->put(std::move(tensor)), &value);
  }
  return value;
}
napi_value Call::wrap(const std::vector<Tensor>& tensors) const {
  napi_value array;
  napi_create_array_with_length(env, tensors.size(), &array);
  uint32_t index = 0;
  for (const Tensor& tensor : tensors) napi_set_element(env, array, index++, wrap(tensor));
  return array;
}
napi_value Call::wrapNumber(double number) const {
  napi_value value;
  napi_create_double(env, number, &value);
  return value;
}
napi_value Call::wrapText(const std::string& text) const {
  napi_value value;
  napi_create_string_utf8(env, text.c_str(), text.size(), &value);
  return value;
}

void throwToJs(napi_env env, const char* message) {
  bool pending = false;
  napi_is_exception_pending(env, &pending);
  if (!pending) napi_throw_error(env, "ATEN", message);
}

void define(napi_env env, napi_value exports, std::initializer_list<Function> functions) {
  for (const Function& function : functions) {
    napi_value value;
    napi_create_function(env, function.name, NAPI_AUTO_LENGTH, function.callback, const_cast<char*>(function.name), &value);
    napi_set_named_property(env, exports, function.name, value);
  }
}
}  // namespace covey
