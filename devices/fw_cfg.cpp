#include "devices/fw_cfg.h"

#include <algorithm>
#include <cstring>
#include <string_view>

namespace martlet {
namespace {

// --- Registers: offsets from port 0x510.
constexpr std::uint64_t kSelector = 0;  // 16 bits, little-endian, write only
constexpr std::uint64_t kData = 1;      // a byte at a time; writes are ignored, as QEMU does since 2.4
constexpr std::uint64_t kDma = 4;       // 64 bits, big-endian, written in halves
constexpr std::uint64_t kDmaLow = 8;    // writing this begins a transfer
constexpr std::uint64_t kEnd = 12;
constexpr std::string_view kDmaSignature{"QEMU CFG"};  // what the DMA register reads as

// --- Items.
constexpr std::uint16_t kSignature = 0x00;
constexpr std::uint16_t kRevision = 0x01;
constexpr std::uint16_t kDirectory = 0x19;
constexpr std::uint16_t kVmcoreinfo = 0x20;  // the first of files

constexpr std::string_view kSignatureText{"QEMU"};
constexpr std::array<std::byte, 4> kRevisionBits{std::byte{0x03}};  // the traditional interface and DMA

/// A count, then of each file: size, key, two bytes reserved, its name in 56. Big-endian.
constexpr std::array<std::byte, 4 + 64> make_directory() {
  constexpr std::string_view kName{"etc/vmcoreinfo"};
  std::array<std::byte, 4 + 64> bytes{};
  bytes[3] = std::byte{1};
  bytes[7] = std::byte{16};
  bytes[9] = std::byte{kVmcoreinfo};
  std::ranges::transform(kName, bytes.begin() + 12, [](char c) { return static_cast<std::byte>(c); });
  return bytes;
}
constexpr auto kDirectoryBytes = make_directory();

// --- What a guest has done by DMA.
struct DmaAccess {
  std::uint32_t control;  // all big-endian
  std::uint32_t length;
  std::uint64_t address;
};
static_assert(sizeof(DmaAccess) == 16);
constexpr std::uint32_t kError = 1U << 0U;
constexpr std::uint32_t kRead = 1U << 1U;
constexpr std::uint32_t kSkip = 1U << 2U;
constexpr std::uint32_t kSelect = 1U << 3U;  // the key is in the upper half
constexpr std::uint32_t kWrite = 1U << 4U;
/// More than all items have: what is past an item's end are zeros, and a guest may not have us write those for ever.
constexpr std::uint32_t kLongestRead = 64U << 10U;

constexpr std::uint32_t swap(std::uint32_t value) { return __builtin_bswap32(value); }
constexpr std::uint64_t swap(std::uint64_t value) { return __builtin_bswap64(value); }

// --- The file (struct FWCfgVMCoreInfo), little-endian.
struct VmcoreinfoFile {
  std::uint16_t host_format;
  std::uint16_t guest_format;
  std::uint32_t size;
  std::uint64_t paddr;
};
constexpr std::uint16_t kFormatElf = 1;

std::uint32_t load32(std::span<const std::byte> data) {
  std::uint32_t value = 0;
  std::memcpy(&value, data.data(), sizeof value);
  return value;
}

}  // namespace

std::span<const std::byte> FwCfg::item() const noexcept {
  switch (state_.selected) {
    case kSignature:
      return std::as_bytes(std::span{kSignatureText});
    case kRevision:
      return kRevisionBits;
    case kDirectory:
      return kDirectoryBytes;
    case kVmcoreinfo:
      return state_.file;
    default:
      return {};
  }
}

void FwCfg::select(std::uint16_t key) noexcept {
  constexpr std::uint16_t kWriteHint = 0x4000;  // of old, and without a meaning now
  state_.selected = key & static_cast<std::uint16_t>(~kWriteHint);
  state_.at = 0;
}

std::byte FwCfg::next() noexcept {
  const auto bytes = item();
  const auto at = state_.at++;
  return at < bytes.size() ? bytes[at] : std::byte{0};
}

void FwCfg::read(std::uint64_t offset, std::span<std::byte> data) noexcept {
  const std::lock_guard lock{mutex_};
  if (offset == kData && data.size() == 1) {
    data.front() = next();
    return;
  }
  for (auto& byte : data) {
    byte = offset >= kDma && offset < kEnd ? static_cast<std::byte>(kDmaSignature[offset - kDma]) : std::byte{0};
    ++offset;
  }
}

void FwCfg::write(std::uint64_t offset, std::span<const std::byte> data) noexcept {
  const std::lock_guard lock{mutex_};
  if (offset == kSelector && data.size() == 2) {
    select(static_cast<std::uint16_t>(std::to_integer<unsigned>(data[0]) | std::to_integer<unsigned>(data[1]) << 8U));
  } else if (offset == kDma && data.size() == 4) {
    state_.dma_address = swap(load32(data));
  } else if (offset == kDmaLow && data.size() == 4) {
    const GuestAddr access{std::uint64_t{state_.dma_address} << 32U | swap(load32(data))};
    state_.dma_address = 0;
    transfer(access);
  }
}

void FwCfg::transfer(GuestAddr addr) noexcept {
  const auto access = memory_.read<DmaAccess>(addr);  // once: the guest may change it
  if (!access) {
    return;  // there is nowhere to say so
  }
  const bool done = obey(swap(access->control), swap(access->length), GuestAddr{swap(access->address)});
  static_cast<void>(memory_.write(addr, swap(done ? 0 : kError)));
}

bool FwCfg::obey(std::uint32_t control, std::uint32_t length, GuestAddr address) noexcept {
  if ((control & kSelect) != 0) {
    select(static_cast<std::uint16_t>(control >> 16U));
  }
  if ((control & kRead) != 0) {
    const auto into = length <= kLongestRead ? memory_.slice(address, length) : std::nullopt;
    if (length != 0 && !into) {
      return false;
    }
    for (std::uint32_t i = 0; i < length; ++i) {
      (*into)[i] = next();
    }
    return true;
  }
  if ((control & kWrite) != 0) {
    const bool fits = state_.selected == kVmcoreinfo && state_.at <= kFileSize && length <= kFileSize - state_.at;
    const auto from = fits ? memory_.slice(address, length) : std::nullopt;
    if (!from) {
      return fits && length == 0;
    }
    std::memcpy(state_.file.data() + state_.at, from->data(), from->size());
    state_.at += length;
    return true;
  }
  if ((control & kSkip) != 0) {
    state_.at += length;
  }
  return true;
}

std::optional<GuestRange> FwCfg::vmcoreinfo() const noexcept {
  VmcoreinfoFile file{};
  static_assert(sizeof file == kFileSize);
  {
    const std::lock_guard lock{mutex_};
    std::memcpy(&file, state_.file.data(), sizeof file);
  }
  if (file.guest_format != kFormatElf || file.size == 0 || file.paddr + file.size < file.paddr) {
    return std::nullopt;
  }
  return GuestRange{GuestAddr{file.paddr}, file.size};
}

}  // namespace martlet
