#include "devices/virtio/net_header.h"

#include <algorithm>

#include "net/backend.h"

namespace martlet::virtio {
namespace {

constexpr std::size_t kEthernetHeader = 14;
// Linux sends no TCP segments with less data than this (TCP_MIN_GSO_SIZE), and no more UDP segments of any size than
// that (UDP_MAX_SEGMENTS); others would only make the host cut a frame into tens of thousands.
constexpr std::uint16_t kLeastSegment = 8;
constexpr std::size_t kMostSmallSegments = 128;
constexpr std::size_t kHeaders = 128;  // of all layers, at most, in a frame of such segments

/// A feature bit each way for each offload.
struct Row {
  std::uint32_t offload;
  std::uint64_t guest;
  std::uint64_t host;
};
constexpr Row kRows[] = {
    {kChecksum, kNetGuestChecksum, kNetChecksum},
    {kTso4, kNetGuestTso4, kNetHostTso4},
    {kTso6, kNetGuestTso6, kNetHostTso6},
    {kTsoEcn, kNetGuestEcn, kNetHostEcn},
    {kUfo, kNetGuestUfo, kNetHostUfo},
    {kUso, kNetGuestUso4 | kNetGuestUso6, kNetHostUso},
};

std::uint32_t offloads_of(std::uint64_t features, std::uint64_t Row::*side) noexcept {
  std::uint32_t offloads = 0;
  for (const auto& row : kRows) {
    offloads |= (features & row.*side) == row.*side ? row.offload : 0;
  }
  if ((offloads & kChecksum) == 0) {
    return 0;
  }
  return (offloads & (kTso4 | kTso6)) == 0 ? offloads & ~std::uint32_t{kTsoEcn} : offloads;
}

/// What a receiver must be able to do for this gso_type; nothing for one that does not exist.
std::optional<std::uint32_t> needs(std::uint8_t gso_type) noexcept {
  const std::uint32_t ecn = (gso_type & kGsoEcn) != 0 ? std::uint32_t{kTsoEcn} : 0;
  switch (static_cast<Gso>(gso_type & ~kGsoEcn)) {
    case Gso::None:
      return ecn == 0 ? std::optional{0U} : std::nullopt;
    case Gso::Tcp4:
      return kTso4 | ecn;
    case Gso::Tcp6:
      return kTso6 | ecn;
    case Gso::Udp:
      return ecn == 0 ? std::optional<std::uint32_t>{kUfo} : std::nullopt;
    case Gso::UdpL4:
      return ecn == 0 ? std::optional<std::uint32_t>{kUso} : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

std::uint32_t guest_offloads(std::uint64_t features) noexcept { return offloads_of(features, &Row::guest); }
std::uint32_t host_offloads(std::uint64_t features) noexcept { return offloads_of(features, &Row::host); }

std::uint64_t features_of(std::uint32_t offloads) noexcept {
  std::uint64_t features = 0;
  for (const auto& row : kRows) {
    features |= (offloads & row.offload) != 0 ? row.guest | row.host : 0;
  }
  return features;
}

bool takes(std::uint32_t offloads, const NetHeader& header) noexcept {
  auto needed = needs(header.gso_type);
  if (needed && (header.flags & kNeedsChecksum) != 0) {
    *needed |= kChecksum;
  }
  return needed && (*needed & ~offloads) == 0;
}

std::optional<NetHeader> check_header(const NetHeader& guest, std::size_t length, std::uint32_t offloads) noexcept {
  if (length < kEthernetHeader || length > NetBackend::kMaxFrame || !takes(offloads, guest)) {
    return std::nullopt;
  }
  NetHeader checked{};
  if ((guest.flags & kNeedsChecksum) == 0) {
    return guest.gso_type == 0 ? std::optional{checked} : std::nullopt;  // segments want checksums
  }
  const std::size_t checksum_end = std::size_t{guest.csum_start} + guest.csum_offset + sizeof(std::uint16_t);
  if (guest.csum_start < kEthernetHeader || checksum_end > length) {
    return std::nullopt;
  }
  checked.flags = kNeedsChecksum;
  checked.csum_start = guest.csum_start;
  checked.csum_offset = guest.csum_offset;
  if (guest.gso_type != 0) {
    const bool tcp = (guest.gso_type & ~kGsoEcn) == static_cast<int>(Gso::Tcp4) ||
                     (guest.gso_type & ~kGsoEcn) == static_cast<int>(Gso::Tcp6);
    const bool few = guest.gso_size != 0 && length <= kHeaders + kMostSmallSegments * guest.gso_size;
    if ((guest.gso_size < kLeastSegment && (tcp || !few)) || guest.hdr_len > length) {
      return std::nullopt;
    }
    checked.gso_type = guest.gso_type;
    checked.gso_size = guest.gso_size;
    // A hint of how long the headers are; they reach beyond the checksum in any case.
    checked.hdr_len = std::max(guest.hdr_len, static_cast<std::uint16_t>(checksum_end));
  }
  return checked;
}

}  // namespace martlet::virtio
