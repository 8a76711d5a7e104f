#include "devices/pci/msix.h"

#include <poll.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace martlet {
namespace {

constexpr std::uint8_t kCapabilityId = 0x11;
// §6.8.2.3, message control: the table's size less 1, and two bits that the guest may write.
constexpr std::size_t kControl = 2;
constexpr std::uint16_t kFunctionMask = 1U << 14U;
constexpr std::uint16_t kEnable = 1U << 15U;

[[nodiscard]] bool permitted(std::uint64_t offset, std::size_t length, std::size_t end) noexcept {
  return (length == 4 || length == 8) && offset % length == 0 && offset < end && length <= end - offset;
}

[[nodiscard]] bool readable(int fd) noexcept {
  pollfd asked{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&asked, 1, 0) > 0;
}

}  // namespace

Msix::Msix(PciConfig& config, MsiRouter& router, const Place& place)
    : config_{config}, router_{router}, table_(place.vectors), lines_(place.vectors), joined_(place.vectors) {
  if (place.vectors == 0 || place.vectors > kMaxVectors) {
    throw std::logic_error{"MSI-X: so many vectors cannot be"};
  }
  struct Body {
    std::uint16_t control;
    std::uint32_t table;
    std::uint32_t pending;
  } __attribute__((packed));
  const Body body{.control = static_cast<std::uint16_t>(place.vectors - 1),
                  .table = place.table | place.bar,
                  .pending = place.pending | place.bar};
  const std::uint16_t writable = kEnable | kFunctionMask;
  capability_ =
      config_.add_capability(kCapabilityId, std::as_bytes(std::span{&body, 1}), std::as_bytes(std::span{&writable, 1}));
}

Msix::~Msix() {
  for (std::size_t i = 0; i < lines_.size(); ++i) {
    if (joined_[i]) {
      router_.disconnect(lines_[i]);
    }
  }
}

void Msix::settle() noexcept {
  const auto control = config_.get<std::uint16_t>(capability_ + kControl);
  const bool enabled = (control & kEnable) != 0;
  // A message is a write to memory, so it takes the right to be bus master.
  const bool master = (config_.get<std::uint16_t>(pci::kCommand) & pci::kBusMaster) != 0;
  const bool active = enabled && (control & kFunctionMask) == 0 && master;
  const bool ends = !enabled && enabled_.load();
  enabled_.store(enabled);
  if (active != active_) {
    active_ = active;
    for (std::size_t i = 0; i < table_.size(); ++i) {
      settle(i);
    }
  }
  if (ends) {  // what was pending is forgotten: who enables it again starts afresh
    for (const auto& line : lines_) {
      drain_counter(line.fd());
    }
  }
}

void Msix::settle(std::size_t vector) noexcept {
  const auto& entry = table_[vector];
  std::optional<MsiMessage> wanted;
  if (active_ && (entry.control & kMasked) == 0) {
    wanted = MsiMessage{.address = entry.address, .data = entry.data};
  }
  auto& joined = joined_[vector];
  if (wanted == joined) {
    return;
  }
  joined = wanted;
  if (wanted) {
    router_.connect(lines_[vector], *wanted);
  } else {
    router_.disconnect(lines_[vector]);
  }
}

void Msix::read_table(std::uint64_t offset, std::span<std::byte> into) const noexcept {
  const auto bytes = std::as_bytes(std::span{table_});
  if (permitted(offset, into.size(), bytes.size())) {
    std::ranges::copy(bytes.subspan(offset, into.size()), into.begin());
  } else {
    std::ranges::fill(into, std::byte{0});
  }
}

void Msix::write_table(std::uint64_t offset, std::span<const std::byte> bytes) noexcept {
  const auto table = std::as_writable_bytes(std::span{table_});
  if (permitted(offset, bytes.size(), table.size())) {
    std::ranges::copy(bytes, table.subspan(offset).begin());
    const auto vector = offset / sizeof(Entry);
    table_[vector].control &= kMasked;
    settle(vector);
  }
}

void Msix::read_pending(std::uint64_t offset, std::span<std::byte> into) const noexcept {
  std::ranges::fill(into, std::byte{0});
  if (permitted(offset, into.size(), (table_.size() + 63) / 64 * 8)) {
    const auto word = pending_word(offset / 8);
    std::memcpy(into.data(), reinterpret_cast<const std::byte*>(&word) + offset % 8, into.size());
  }
}

/// A line that is joined to its message holds nothing back.
std::uint64_t Msix::pending_word(std::uint64_t word) const noexcept {
  std::uint64_t pending = 0;
  const auto first = word * 64;
  for (auto i = first; i < std::min<std::uint64_t>(first + 64, lines_.size()); ++i) {
    if (!joined_[i] && readable(lines_[i].fd())) {
      pending |= std::uint64_t{1} << (i - first);
    }
  }
  return pending;
}

}  // namespace martlet
