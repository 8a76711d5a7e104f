#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>

namespace martlet::virtio {

/// A device's configuration fields (virtio 1.2 §2.5), `kBytes` of them on the wire. One thread changes them, the event
/// loop's, while vCPU threads read them.
template <class Fields, std::size_t kBytes = sizeof(Fields)>
class DeviceConfig {
 public:
  explicit DeviceConfig(const Fields& fields) noexcept : fields_{fields} {}

  /// Beyond the fields: zeroes.
  void read(std::uint32_t offset, std::span<std::byte> into) const noexcept {
    const std::lock_guard lock{mutex_};
    const auto bytes = std::as_bytes(std::span{&fields_, 1}).first(kBytes);
    const auto known = bytes.subspan(std::min<std::size_t>(offset, kBytes));
    const auto count = std::min(known.size(), into.size());
    std::ranges::copy(known.first(count), into.begin());
    std::ranges::fill(into.subspan(count), std::byte{});
  }
  /// Another after each change() (§2.5.1).
  [[nodiscard]] std::uint32_t generation() const noexcept { return generation_; }

  /// On the thread that changes them.
  [[nodiscard]] const Fields& fields() const noexcept { return fields_; }
  template <class Change>
  void change(const Change& change) noexcept {
    const std::lock_guard lock{mutex_};
    change(fields_);
    ++generation_;
  }
  /// With the lock that guards them, from any thread: for what the driver itself writes, which is no news to it.
  template <class Action>
  void locked(const Action& action) noexcept {
    const std::lock_guard lock{mutex_};
    action(fields_);
  }

 private:
  mutable std::mutex mutex_;
  Fields fields_;
  std::atomic<std::uint32_t> generation_ = 0;
};

}  // namespace martlet::virtio
