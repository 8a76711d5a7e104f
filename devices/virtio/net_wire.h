#pragma once
// What a virtio-net driver and device say to each other, bit for bit (virtio 1.2 §5.1).

#include <array>
#include <cstdint>

namespace martlet::virtio {

enum NetFeature : std::uint64_t {  // §5.1.3
  kNetChecksum = 1ULL << 0U,
  kNetGuestChecksum = 1ULL << 1U,
  kNetControlGuestOffloads = 1ULL << 2U,
  kNetMtu = 1ULL << 3U,
  kNetMac = 1ULL << 5U,
  kNetGuestTso4 = 1ULL << 7U,
  kNetGuestTso6 = 1ULL << 8U,
  kNetGuestEcn = 1ULL << 9U,
  kNetGuestUfo = 1ULL << 10U,
  kNetHostTso4 = 1ULL << 11U,
  kNetHostTso6 = 1ULL << 12U,
  kNetHostEcn = 1ULL << 13U,
  kNetHostUfo = 1ULL << 14U,
  kNetMergeableBuffers = 1ULL << 15U,
  kNetStatus = 1ULL << 16U,
  kNetControlQueue = 1ULL << 17U,
  kNetControlRx = 1ULL << 18U,
  kNetControlRxExtra = 1ULL << 20U,
  kNetMultiQueue = 1ULL << 22U,
  kNetControlMac = 1ULL << 23U,
  kNetGuestUso4 = 1ULL << 54U,
  kNetGuestUso6 = 1ULL << 55U,
  kNetHostUso = 1ULL << 56U,
};

/// In front of every frame, both ways, §5.1.6.
struct NetHeader {
  std::uint8_t flags = 0;
  std::uint8_t gso_type = 0;
  std::uint16_t hdr_len = 0;
  std::uint16_t gso_size = 0;
  std::uint16_t csum_start = 0;
  std::uint16_t csum_offset = 0;
  std::uint16_t num_buffers = 0;
  friend bool operator==(const NetHeader&, const NetHeader&) noexcept = default;
};
static_assert(sizeof(NetHeader) == 12);

enum NetHeaderFlag : std::uint8_t { kNeedsChecksum = 1, kDataValid = 2 };
enum class Gso : std::uint8_t { None = 0, Tcp4 = 1, Udp = 3, Tcp6 = 4, UdpL4 = 5 };
inline constexpr std::uint8_t kGsoEcn = 0x80;

/// The configuration space, §5.1.4. Speed and duplex are not offered.
struct [[gnu::packed]] NetConfig {
  std::array<std::uint8_t, 6> mac{};
  std::uint16_t status = 0;
  std::uint16_t max_pairs = 0;
  std::uint16_t mtu = 0;
};
static_assert(sizeof(NetConfig) == 12);
enum NetStatusBit : std::uint16_t { kLinkUp = 1 };

/// Commands of the control queue, §5.1.6.5: class and command, then data, then one byte of answer.
enum class NetClass : std::uint8_t { Rx = 0, Mac = 1, MultiQueue = 4, GuestOffloads = 5 };
enum class NetAnswer : std::uint8_t { Ok = 0, Error = 1 };

}  // namespace martlet::virtio
