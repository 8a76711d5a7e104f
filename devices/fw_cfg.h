#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>

#include "vmm/base/bus.h"
#include "vmm/base/guest_memory.h"

namespace martlet {

/// QEMU's fw_cfg (docs/specs/fw_cfg.rst) with a single file, etc/vmcoreinfo (docs/specs/vmcoreinfo.rst): in it a Linux
/// whose driver qemu_fw_cfg is loaded writes where its VMCOREINFO is. Any vCPU may come at any time, so it has a lock.
class FwCfg final : public BusDevice {
 public:
  explicit FwCfg(const GuestMemory& memory) : memory_{memory} {}

  void read(std::uint64_t offset, std::span<std::byte> data) noexcept override;
  void write(std::uint64_t offset, std::span<const std::byte> data) noexcept override;

  /// Where the guest says its VMCOREINFO is: an ELF note. Nothing as long as it says nothing. From any thread.
  [[nodiscard]] std::optional<GuestRange> vmcoreinfo() const noexcept;

 private:
  static constexpr std::size_t kFileSize = 16;

  struct State {
    std::uint16_t selected = 0;
    std::uint64_t at = 0;           // of the selected item, where the next byte is; may be past its end
    std::uint32_t dma_address = 0;  // the upper half
    std::array<std::byte, kFileSize> file{std::byte{1}};  // we take ELF notes (host_format)
  };

  [[nodiscard]] std::span<const std::byte> item() const noexcept;
  void select(std::uint16_t key) noexcept;
  [[nodiscard]] std::byte next() noexcept;
  void transfer(GuestAddr access) noexcept;
  [[nodiscard]] bool obey(std::uint32_t control, std::uint32_t length, GuestAddr address) noexcept;

  const GuestMemory& memory_;
  mutable std::mutex mutex_;
  State state_;
};

}  // namespace martlet
