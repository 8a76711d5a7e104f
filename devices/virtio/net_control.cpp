#include "devices/virtio/net_control.h"

namespace martlet::virtio {
namespace {

constexpr std::uint64_t kGuestOffloadBits =
    kNetGuestChecksum | kNetGuestTso4 | kNetGuestTso6 | kNetGuestEcn | kNetGuestUfo | kNetGuestUso4 | kNetGuestUso6;

/// §5.1.6.5.1: promiscuous, all multicast; with the extra feature: all unicast, no multicast, no unicast,
/// no broadcast.
std::optional<NetCommand> parse_rx(ChainReader request, std::uint8_t command, std::uint64_t features) noexcept {
  const bool known = (command <= 1 && (features & kNetControlRx) != 0) ||
                     (command >= 2 && command <= 5 && (features & kNetControlRxExtra) != 0);
  if (!known || !request.read<std::uint8_t>()) {
    return std::nullopt;
  }
  return SetFilter{};
}

std::optional<NetCommand> parse_mac(ChainReader request, std::uint8_t command, std::uint64_t features) noexcept {
  if (command == 0 && (features & kNetControlRx) != 0) {  // §5.1.6.5.2: two tables, unicast and multicast
    for (int table = 0; table < 2; ++table) {
      const auto entries = request.read<std::uint32_t>();
      if (!entries) {
        return std::nullopt;
      }
      const std::uint64_t bytes = std::uint64_t{*entries} * sizeof(SetMac::mac);
      if (request.skip(bytes) != bytes) {
        return std::nullopt;
      }
    }
    return SetFilter{};
  }
  if (command == 1 && (features & kNetControlMac) != 0) {
    const auto mac = request.read<std::array<std::uint8_t, 6>>();
    const bool usable = mac && ((*mac)[0] & 1U) == 0 && *mac != std::array<std::uint8_t, 6>{};
    return usable ? std::optional<NetCommand>{SetMac{*mac}} : std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

std::optional<NetCommand> parse_command(ChainReader request, std::uint64_t features, std::uint16_t pairs) noexcept {
  const auto head = request.read<std::array<std::uint8_t, 2>>();
  if (!head) {
    return std::nullopt;
  }
  const std::uint8_t command = (*head)[1];
  switch (static_cast<NetClass>((*head)[0])) {
    case NetClass::Rx:
      return parse_rx(request, command, features);
    case NetClass::Mac:
      return parse_mac(request, command, features);
    case NetClass::MultiQueue:
      if (command == 0 && (features & kNetMultiQueue) != 0) {
        const auto wanted = request.read<std::uint16_t>();
        if (wanted && *wanted >= 1 && *wanted <= pairs) {
          return SetPairs{*wanted};
        }
      }
      return std::nullopt;
    case NetClass::GuestOffloads:
      if (command == 0 && (features & kNetControlGuestOffloads) != 0) {
        const auto mask = request.read<std::uint64_t>();
        if (mask && (*mask & ~(features & kGuestOffloadBits)) == 0) {
          return SetGuestOffloads{*mask};
        }
      }
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace martlet::virtio
