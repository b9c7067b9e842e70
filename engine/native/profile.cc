#include "profile.h"

#include <algorithm>
#include <cstring>

#include "context.h"

namespace covey {
namespace {
/// The profile that libtorch's callbacks of this thread report to.
thread_local Profile* observer = nullptr;
/// Results come after all arguments.
constexpr size_t outputs = static_cast<size_t>(-1);

std::unique_ptr<at::ObserverContext> operatorBegins(const at::RecordFunction& function) {
  if (observer == nullptr) return nullptr;
  // Names only: the arguments are laid out by how libtorch itself was compiled (NDEBUG), which this header cannot know.
  observer->begin(function.name());
  return nullptr;
}
void operatorEnds(const at::RecordFunction&, at::ObserverContext*) {
  if (observer != nullptr) observer->end();
}
}  // namespace

void Profile::start(bool inner) {
  stop();
  names.clear(), name.clear(), started.clear(), ended.clear(), details.clear(), detailsEnd.clear(), numbers_.clear();
  dropped = 0;
  depth_ = 0;
  origin_ = std::chrono::steady_clock::now();
  on = true;
  if (inner) {
    observer = this;
    at::RecordFunctionCallback callback(operatorBegins, operatorEnds);
    inner_ = at::addThreadLocalCallback(callback.scopes({at::RecordScope::FUNCTION}));
  }
}

void Profile::stop() {
  on = false;
  if (observer != this) return;
  observer = nullptr;
  at::removeCallback(inner_);
}

double Profile::now() const { return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - origin_).count(); }

uint32_t Profile::numberOf(const std::string& text) {
  const auto [found, isNew] = numbers_.emplace(text, static_cast<uint32_t>(names.size()));
  if (isNew) names.push_back(text);
  return found->second;
}

void Profile::begin(const char* text) {
  if (depth_ == open_.size()) open_.push_back(std::make_unique<Open>());
  Open& open = *open_[depth_++];
  open.name = numberOf(text);
  open.items.clear(), open.storages.clear();
  open.started = now();
}

void Profile::rename(const std::string& text) {
  if (Open* open = current()) open->name = numberOf(text);
}

bool Profile::notedBefore(const Open& open, size_t index) {
  return std::any_of(open.items.begin(), open.items.end(), [index](const Item& item) { return item.index == index; });
}

void Profile::note(Open& open, size_t index, DetailKind kind, const at::Tensor& tensor) {
  open.items.push_back({index, kind, static_cast<double>(tensor.scalar_type()), static_cast<double>(tensor.element_size()),
                        std::vector<double>(tensor.sizes().begin(), tensor.sizes().end())});
}

void Profile::noteInput(size_t index, const at::Tensor& tensor) {
  Open* open = current();
  if (open == nullptr || !tensor.defined() || notedBefore(*open, index)) return;
  if (tensor.has_storage()) open->storages.push_back(tensor.storage().unsafeGetStorageImpl());
  note(*open, index, DetailKind::input, tensor);
}

void Profile::noteInput(const c10::IValue& value) {
  if (current() == nullptr) return;
  // Numbered behind the arguments that Call counts.
  const auto next = [this] { return Call::argumentsMax + current()->items.size(); };
  if (value.isTensor()) noteInput(next(), value.toTensor());
  if (value.isTensorList()) for (const at::Tensor& tensor : value.toTensorVector()) noteInput(next(), tensor);
}

void Profile::noteOutput(const at::Tensor& tensor) {
  Open* open = current();
  if (open == nullptr || !tensor.defined()) return;
  const void* storage = tensor.has_storage() ? tensor.storage().unsafeGetStorageImpl() : nullptr;
  const bool isAlias = std::find(open->storages.begin(), open->storages.end(), storage) != open->storages.end();
  note(*open, outputs, isAlias ? DetailKind::aliasOutput : DetailKind::output, tensor);
}

void Profile::noteFlag(size_t index, bool value) {
  Open* open = current();
  if (open == nullptr || notedBefore(*open, index)) return;
  open->items.push_back({index, DetailKind::flag, static_cast<double>(index), value ? 1.0 : 0.0, {}});
}

void Profile::noteHostArray(size_t index, size_t elementBytes, size_t length) {
  Open* open = current();
  if (open == nullptr || notedBefore(*open, index)) return;
  const auto bytes = static_cast<double>(elementBytes);
  open->items.push_back({index, DetailKind::hostArray, static_cast<double>(index), bytes, {static_cast<double>(length)}});
}

void Profile::end() {
  if (depth_ == 0) return;
  Open& open = *open_[--depth_];
  if (!on) return;
  if (name.size() >= eventsMax) {
    dropped++;
    return;
  }
  name.push_back(open.name);
  started.push_back(open.started);
  ended.push_back(now());
  std::stable_sort(open.items.begin(), open.items.end(), [](const Item& a, const Item& b) { return a.index < b.index; });
  for (const Item& item : open.items) {
    details.insert(details.end(), {static_cast<double>(item.kind), item.typeOrIndex, item.bytesOrFlag, static_cast<double>(item.sides.size())});
    details.insert(details.end(), item.sides.begin(), item.sides.end());
  }
  detailsEnd.push_back(static_cast<uint32_t>(details.size()));
}

namespace {

template <class T>
napi_value typedArrayOf(napi_env env, napi_typedarray_type type, const std::vector<T>& values) {
  void* memory;
  napi_value buffer, array;
  napi_create_arraybuffer(env, values.size() * sizeof(T), &memory, &buffer);
  if (!values.empty()) std::memcpy(memory, values.data(), values.size() * sizeof(T));
  napi_create_typedarray(env, type, values.size(), buffer, 0, &array);
  return array;
}

// profileStart(inner)
napi_value profileStart(Call& call) {
  call.context->profile.start(call.boolean(0));
  return call.undefined();
}

// profileMark(out: Float64Array(3)): nanoseconds since profileStart, live bytes, peak bytes since the last mark. Not itself an event.
napi_value profileMark(napi_env env, napi_callback_info info) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  Call call{env, static_cast<Context*>(data), Call::argumentsMax, {}};
  napi_get_cb_info(env, info, &call.count, call.values, nullptr, nullptr);
  size_t length = 0;
  napi_typedarray_type type;
  void* out = nullptr;
  if (call.count < 1 || napi_get_typedarray_info(env, call.values[0], &type, &length, &out, nullptr, nullptr) != napi_ok ||
      type != napi_float64_array || length < 3) {
    throwToJs(env, "profileMark: expected a Float64Array of 3");
    return nullptr;
  }
  const CpuMemory memory = cpuMemory();
  resetCpuPeak();
  static_cast<double*>(out)[0] = call.context->profile.now();
  static_cast<double*>(out)[1] = static_cast<double>(memory.live);
  static_cast<double*>(out)[2] = static_cast<double>(memory.peak);
  return nullptr;
}

// profileStop() -> {names, name, started, ended, details, detailsEnd, dropped}
napi_value profileStop(Call& call) {
  Profile& profile = call.context->profile;
  profile.stop();
  napi_value result, names;
  napi_create_object(call.env, &result);
  napi_create_array_with_length(call.env, profile.names.size(), &names);
  for (size_t i = 0; i < profile.names.size(); i++) napi_set_element(call.env, names, i, call.wrapText(profile.names[i]));
  napi_set_named_property(call.env, result, "names", names);
  napi_set_named_property(call.env, result, "name", typedArrayOf(call.env, napi_uint32_array, profile.name));
  napi_set_named_property(call.env, result, "started", typedArrayOf(call.env, napi_float64_array, profile.started));
  napi_set_named_property(call.env, result, "ended", typedArrayOf(call.env, napi_float64_array, profile.ended));
  napi_set_named_property(call.env, result, "details", typedArrayOf(call.env, napi_float64_array, profile.details));
  napi_set_named_property(call.env, result, "detailsEnd", typedArrayOf(call.env, napi_uint32_array, profile.detailsEnd));
  napi_set_named_property(call.env, result, "dropped", call.wrapNumber(profile.dropped));
  return result;
}

}  // namespace

void defineProfile(napi_env env, napi_value exports) {
  define(env, exports, {{"profileStart", entry<profileStart>}, {"profileMark", profileMark}, {"profileStop", entry<profileStop>}});
}
}  // namespace covey
