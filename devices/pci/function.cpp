#include "devices/pci/function.h"

#include <algorithm>

namespace martlet {

void PciFunction::read_config(std::uint32_t offset, std::span<std::byte> into) noexcept {
  const std::lock_guard lock{mutex_};
  on_config_read(offset, into.size());
  const auto status = config_.get<std::uint16_t>(pci::kStatus);
  config_.set(pci::kStatus, static_cast<std::uint16_t>(interrupting() ? status | pci::kInterruptStatus
                                                                      : status & ~unsigned{pci::kInterruptStatus}));
  config_.read(offset, into);
}

void PciFunction::write_config(std::uint32_t offset, std::span<const std::byte> bytes) noexcept {
  const std::lock_guard lock{mutex_};
  config_.write(offset, bytes);
  settle_decoding();
  on_config_written(offset, bytes.size());
}

void PciFunction::read_bar(unsigned bar, std::uint64_t offset, std::span<std::byte> into) noexcept {
  const std::lock_guard lock{mutex_};
  on_bar_read(bar, offset, into);
}

void PciFunction::write_bar(unsigned bar, std::uint64_t offset, std::span<const std::byte> bytes) noexcept {
  const std::lock_guard lock{mutex_};
  on_bar_write(bar, offset, bytes);
}

std::optional<PciFunction::Hit> PciFunction::decode(GuestAddr addr, std::uint64_t length) const noexcept {
  for (unsigned bar = 0; bar < PciConfig::kBarCount; ++bar) {
    const auto decoded = decoded_[bar].load(std::memory_order_acquire);
    const auto offset = raw(addr) - (decoded & ~kDecoding);  // wraps far beyond any BAR below it
    const std::uint64_t size = config_.bar_size(bar);
    if ((decoded & kDecoding) != 0 && offset < size && length <= size - offset) {
      return Hit{.bar = bar, .offset = offset};
    }
  }
  return std::nullopt;
}

std::optional<GuestAddr> PciFunction::bar_address(unsigned bar) const noexcept {
  const auto decoded = decoded_[bar].load(std::memory_order_relaxed);
  return (decoded & kDecoding) != 0 ? std::optional{GuestAddr{decoded & ~kDecoding}} : std::nullopt;
}

void PciFunction::on_bar_read(unsigned /*bar*/, std::uint64_t /*offset*/, std::span<std::byte> into) noexcept {
  std::ranges::fill(into, std::byte{0});
}

void PciFunction::settle_decoding() noexcept {
  for (unsigned bar = 0; bar < PciConfig::kBarCount; ++bar) {
    const GuestRange range{.start = GuestAddr{config_.bar(bar)}, .size = config_.bar_size(bar)};
    const bool answers = range.size != 0 && (command() & pci::kMemorySpace) != 0 && window_.contains(range);
    decoded_[bar].store(answers ? raw(range.start) | kDecoding : 0, std::memory_order_release);
  }
}

}  // namespace martlet
