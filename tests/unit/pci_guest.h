#pragma once
// The guest's side of a PCI host, and wires that only remember.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "devices/pci/host.h"
#include "devices/pci/msi.h"
#include "vmm/base/doorbell.h"

namespace martlet {

class FakeDoorbells final : public Doorbells {
 public:
  bool add(GuestAddr addr, int eventfd) noexcept override {
    const std::lock_guard lock{mutex_};
    return !refuse && at_.emplace(raw(addr), eventfd).second;
  }
  void remove(GuestAddr addr, int eventfd) noexcept override {
    const std::lock_guard lock{mutex_};
    const auto found = at_.find(raw(addr));
    lost += found == at_.end() || found->second != eventfd ? 1 : 0;
    at_.erase(raw(addr));
  }
  [[nodiscard]] std::map<std::uint64_t, int> all() {
    const std::lock_guard lock{mutex_};
    return at_;
  }
  bool refuse = false;
  int lost = 0;  ///< removals of what was never added

 private:
  std::mutex mutex_;
  std::map<std::uint64_t, int> at_;
};

class FakeMsiRouter final : public MsiRouter {
 public:
  void connect(const IrqLine& line, const MsiMessage& message) noexcept override {
    const std::lock_guard lock{mutex_};
    joined_[&line] = message;
    ++calls;
  }
  void disconnect(const IrqLine& line) noexcept override {
    const std::lock_guard lock{mutex_};
    lost += joined_.erase(&line) == 0 ? 1 : 0;
    ++calls;
  }
  [[nodiscard]] std::optional<MsiMessage> message(const IrqLine& line) {
    const std::lock_guard lock{mutex_};
    const auto found = joined_.find(&line);
    return found != joined_.end() ? std::optional{found->second} : std::nullopt;
  }
  /// As KVM's irqfds do: takes what is raised on joined lines. The data of each message sent.
  [[nodiscard]] std::vector<std::uint32_t> sent() {
    const std::lock_guard lock{mutex_};
    std::vector<std::uint32_t> sent;
    for (const auto& [line, message] : joined_) {
      if (drain_counter(line->fd()) != 0) {
        sent.push_back(message.data);
      }
    }
    return sent;
  }
  [[nodiscard]] std::size_t joined() {
    const std::lock_guard lock{mutex_};
    return joined_.size();
  }
  int calls = 0;
  int lost = 0;

 private:
  std::mutex mutex_;
  std::map<const IrqLine*, MsiMessage> joined_;
};

/// Loads and stores as a CPU does them.
template <class T>
[[nodiscard]] T load(BusDevice& device, std::uint64_t offset) {
  T value{};
  device.read(offset, std::as_writable_bytes(std::span{&value, 1}));
  return value;
}
template <class T>
void store(BusDevice& device, std::uint64_t offset, T value) {
  device.write(offset, std::as_bytes(std::span{&value, 1}));
}

inline constexpr GuestRange kPciWindow{GuestAddr{0xc0000000}, 0x20000000};

/// A driver's view of one device behind `host`.
class PciGuest {
 public:
  PciGuest(PciHost& host, std::uint8_t device) : host_{host}, ecam_{std::uint64_t{device} << 15U} {}

  template <class T>
  [[nodiscard]] T config(std::uint32_t offset) const {
    return load<T>(host_.ecam(), ecam_ + offset);
  }
  template <class T>
  void set_config(std::uint32_t offset, T value) const {
    store(host_.ecam(), ecam_ + offset, value);
  }
  void command(unsigned bits) const { set_config(pci::kCommand, static_cast<std::uint16_t>(bits)); }

  /// The same registers through 0xcf8 and 0xcfc.
  template <class T>
  [[nodiscard]] T port_config(std::uint32_t offset) const {
    select(offset);
    return load<T>(host_.data_port(), offset % 4);
  }
  template <class T>
  void set_port_config(std::uint32_t offset, T value) const {
    select(offset);
    store(host_.data_port(), offset % 4, value);
  }

  [[nodiscard]] std::uint32_t bar(unsigned index) const {
    return config<std::uint32_t>(pci::kBars + 4 * index) & ~std::uint32_t{0xf};
  }
  void move_bar(unsigned index, std::uint32_t address) const { set_config(pci::kBars + 4 * index, address); }

  template <class T>
  [[nodiscard]] T memory(std::uint64_t address) const {
    return load<T>(host_.window(), address - raw(kPciWindow.start));
  }
  template <class T>
  void set_memory(std::uint64_t address, T value) const {
    store(host_.window(), address - raw(kPciWindow.start), value);
  }

  /// The offsets of all capabilities with this id, as Linux walks them.
  [[nodiscard]] std::vector<std::uint8_t> capabilities(std::uint8_t id) const {
    std::vector<std::uint8_t> found;
    std::uint8_t at = config<std::uint8_t>(pci::kCapabilities);
    for (int left = 48; at >= pci::kDeviceSpecific && left > 0; --left) {
      const auto entry = config<std::uint16_t>(at);
      if ((entry & 0xffU) == id) {
        found.push_back(at);
      }
      at = static_cast<std::uint8_t>(entry >> 8U);
    }
    return found;
  }

 private:
  void select(std::uint32_t offset) const {
    store(host_.address_port(), 0, static_cast<std::uint32_t>(0x80000000U | ecam_ >> 4U | (offset & 0xfcU)));
  }

  PciHost& host_;
  std::uint64_t ecam_;
};

}  // namespace martlet
