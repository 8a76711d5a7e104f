#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "devices/pci/function.h"
#include "vmm/base/bus.h"
#include "vmm/base/guest_addr.h"

namespace martlet {

/// A host bridge with one bus: itself at 00:00.0 and function 0 of up to 31 devices. What is not there
/// reads as all ones. Configuration space is reached through ECAM (PCI Express 4.0 §7.2.2) and through
/// ports 0xcf8 and 0xcfc (PCI Local Bus 3.0 §3.2.2.3.2), BARs through the window.
///
/// It shows itself as 1b36:0008, the generic host bridge that QEMU's machines without a chipset have:
/// no kernel has a quirk for it.
class PciHost {
 public:
  static constexpr std::size_t kDevices = 32;
  static constexpr std::uint64_t kEcamSize = std::uint64_t{1} << 20U;  // one bus
  static constexpr std::uint32_t kFirstGsi = 16;                       // behind the ISA interrupts
  static constexpr std::uint32_t kGsiCount = 4;

  /// `window` lies below 4 GiB; all BARs come to lie in it.
  explicit PciHost(const GuestRange& window);
  PciHost(const PciHost&) = delete;
  PciHost& operator=(const PciHost&) = delete;
  ~PciHost();

  /// Plugs `function` in, before the guest runs, and gives it addresses and an interrupt line as firmware
  /// does. It outlives the last access. Returns its device number; HostError when there is no room.
  std::uint8_t add(PciFunction& function);

  /// The global system interrupt that a device's INTA is wired to; what _PRT says.
  [[nodiscard]] static constexpr std::uint32_t gsi(std::uint8_t device) noexcept {
    return kFirstGsi + device % kGsiCount;
  }

  [[nodiscard]] BusDevice& ecam() noexcept { return ecam_; }                  ///< kEcamSize
  [[nodiscard]] BusDevice& address_port() noexcept { return address_port_; }  ///< 4 ports from 0xcf8
  [[nodiscard]] BusDevice& data_port() noexcept { return data_port_; }        ///< 4 ports from 0xcfc
  [[nodiscard]] BusDevice& window() noexcept { return window_; }              ///< the whole window

 private:
  /// One way in: bus accesses become configuration or BAR accesses of the host's.
  template <auto kRead, auto kWrite>
  class Entrance final : public BusDevice {
   public:
    explicit Entrance(PciHost& host) : host_{host} {}
    void read(std::uint64_t offset, std::span<std::byte> data) noexcept override { (host_.*kRead)(offset, data); }
    void write(std::uint64_t offset, std::span<const std::byte> data) noexcept override {
      (host_.*kWrite)(offset, data);
    }

   private:
    PciHost& host_;
  };

  void read_config(std::uint64_t offset, std::span<std::byte> data) noexcept;
  void write_config(std::uint64_t offset, std::span<const std::byte> data) noexcept;
  void read_address(std::uint64_t offset, std::span<std::byte> data) noexcept;
  void write_address(std::uint64_t offset, std::span<const std::byte> data) noexcept;
  void read_data(std::uint64_t offset, std::span<std::byte> data) noexcept;
  void write_data(std::uint64_t offset, std::span<const std::byte> data) noexcept;
  void read_memory(std::uint64_t offset, std::span<std::byte> data) noexcept;
  void write_memory(std::uint64_t offset, std::span<const std::byte> data) noexcept;
  [[nodiscard]] PciFunction* function_at(std::uint64_t ecam_offset, std::size_t length) const noexcept;
  [[nodiscard]] std::uint64_t selected(std::uint64_t port_offset) const noexcept;

  GuestRange range_;
  std::uint64_t next_;  // where the next BAR may begin
  std::unique_ptr<PciFunction> bridge_;
  std::array<PciFunction*, kDevices> functions_{};  // by device number, without gaps
  std::uint8_t count_ = 0;
  std::atomic<std::uint32_t> config_address_ = 0;  // 0xcf8

  Entrance<&PciHost::read_config, &PciHost::write_config> ecam_{*this};
  Entrance<&PciHost::read_address, &PciHost::write_address> address_port_{*this};
  Entrance<&PciHost::read_data, &PciHost::write_data> data_port_{*this};
  Entrance<&PciHost::read_memory, &PciHost::write_memory> window_{*this};
};

}  // namespace martlet
