// What one thread's calls into the addon did while a profile runs: when, on which shapes. Costs one test of `on` per call otherwise.
#pragma once
#include <ATen/ATen.h>
#include <ATen/record_function.h>

#include <chrono>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

namespace covey {
/// How an entry of `details` is to be read; engine/profile/native-events.ts reads them back.
enum class DetailKind { input = 0, output = 1, aliasOutput = 2, flag = 3, hostArray = 4 };

class Profile {
 public:
  bool on = false;

  /// Forgets what was recorded and starts. `inner`: also record the ATen operators that libtorch runs inside a call.
  void start(bool inner);
  void stop();
  /// Nanoseconds since `start`, on the clock of all events.
  double now() const;

  void begin(const char* name);
  /// A name that is known only inside the call, or is not a literal.
  void rename(const std::string& name);
  /// An argument; the same `index` is noted once per call.
  void noteInput(size_t index, const at::Tensor& tensor);
  void noteInput(const c10::IValue& value);
  void noteOutput(const at::Tensor& tensor);
  void noteFlag(size_t index, bool value);
  void noteHostArray(size_t index, size_t elementBytes, size_t length);
  void end();

  // Recorded events, in order of their ends. Those of event i are details[detailsEnd[i - 1] .. detailsEnd[i]).
  std::vector<std::string> names;
  std::vector<uint32_t> name;
  std::vector<double> started, ended;
  /// Groups, arguments before results, of [kind, scalar type or argument index, bytes of an element or flag, rank, ...sides].
  std::vector<double> details;
  std::vector<uint32_t> detailsEnd;
  /// Calls beyond `eventsMax`, which are not recorded.
  uint32_t dropped = 0;

 private:
  static constexpr size_t eventsMax = 4000000;
  /// One argument or result of an open call; `index` orders them as in the call, whatever order the body reads them in.
  struct Item {
    size_t index;
    DetailKind kind;
    double typeOrIndex, bytesOrFlag;
    std::vector<double> sides;
  };
  struct Open {
    uint32_t name;
    double started;
    std::vector<Item> items;
    std::vector<const void*> storages;
  };
  Open* current() { return depth_ > 0 ? open_[depth_ - 1].get() : nullptr; }
  uint32_t numberOf(const std::string& name);
  static void note(Open& open, size_t index, DetailKind kind, const at::Tensor& tensor);
  static bool notedBefore(const Open& open, size_t index);

  std::chrono::steady_clock::time_point origin_;
  std::unordered_map<std::string, uint32_t> numbers_;
  std::vector<std::unique_ptr<Open>> open_;
  size_t depth_ = 0;
  at::CallbackHandle inner_ = 0;
};

/// Brackets one call. Nothing happens unless the profile was on when it began.
class ProfiledCall {
 public:
  ProfiledCall(Profile& profile, const char* name) : profile_(profile.on ? &profile : nullptr) {
    if (profile_ != nullptr) profile_->begin(name);
  }
  ~ProfiledCall() {
    if (profile_ != nullptr) profile_->end();
  }
  ProfiledCall(const ProfiledCall&) = delete;
  ProfiledCall& operator=(const ProfiledCall&) = delete;

 private:
  Profile* profile_;
};
}  // namespace covey
