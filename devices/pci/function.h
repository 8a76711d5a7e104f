#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>

#include "devices/pci/config.h"
#include "vmm/base/guest_addr.h"

namespace martlet {

/// One function on the PCI bus: configuration space, and BARs whose accesses go to the class that derives
/// from it. One lock for all of them, held in each of the on_…() calls; vCPU threads call from outside,
/// several at once.
class PciFunction {
 public:
  PciFunction(const PciFunction&) = delete;
  PciFunction& operator=(const PciFunction&) = delete;
  virtual ~PciFunction() = default;

  /// The guest's accesses: up to 8 bytes, to BARs wholly inside (as decode() answers).
  void read_config(std::uint32_t offset, std::span<std::byte> into) noexcept;
  void write_config(std::uint32_t offset, std::span<const std::byte> bytes) noexcept;
  void read_bar(unsigned bar, std::uint64_t offset, std::span<std::byte> into) noexcept;
  void write_bar(unsigned bar, std::uint64_t offset, std::span<const std::byte> bytes) noexcept;

  struct Hit {
    unsigned bar = 0;
    std::uint64_t offset = 0;
  };
  /// The BAR that answers to all of `length` bytes at `addr` just now. Takes no lock.
  [[nodiscard]] std::optional<Hit> decode(GuestAddr addr, std::uint64_t length) const noexcept;

  // --- For PciHost, before the guest runs.

  [[nodiscard]] std::uint32_t bar_size(unsigned bar) const noexcept { return config_.bar_size(bar); }
  void place_bar(unsigned bar, std::uint32_t address) noexcept { config_.set_bar(bar, address); }
  /// The addresses that the host bridge passes on: a BAR elsewhere answers to nothing.
  void set_window(const GuestRange& window) noexcept { window_ = window; }
  /// What firmware notes in the interrupt line register.
  void set_interrupt_line(std::uint8_t line) noexcept { config_.set(pci::kInterruptLine, line); }

 protected:
  explicit PciFunction(const PciIdentity& identity) noexcept : config_{identity} {}

  /// Where the BAR answers now; nothing while it does not.
  [[nodiscard]] std::optional<GuestAddr> bar_address(unsigned bar) const noexcept;
  [[nodiscard]] std::uint16_t command() const noexcept { return config_.get<std::uint16_t>(pci::kCommand); }

  PciConfig config_;

 private:
  virtual void on_bar_read(unsigned bar, std::uint64_t offset, std::span<std::byte> into) noexcept;
  virtual void on_bar_write(unsigned /*bar*/, std::uint64_t /*offset*/, std::span<const std::byte> /*bytes*/) noexcept {
  }
  /// Before the guest reads these bytes of the configuration space.
  virtual void on_config_read(std::uint32_t /*offset*/, std::size_t /*length*/) noexcept {}
  /// After it wrote some: BARs may have moved, memory decoding, bus mastering or interrupts been switched.
  virtual void on_config_written(std::uint32_t /*offset*/, std::size_t /*length*/) noexcept {}
  /// Does it want INTx asserted? That is what the status register shows, whether INTx is disabled or not.
  [[nodiscard]] virtual bool interrupting() const noexcept { return false; }

  void settle_decoding() noexcept;

  std::mutex mutex_;
  GuestRange window_{};
  // Each BAR's address with kDecoding, or 0 while it answers to nothing.
  static constexpr std::uint64_t kDecoding = 1;
  std::array<std::atomic<std::uint64_t>, PciConfig::kBarCount> decoded_{};
};

}  // namespace martlet
