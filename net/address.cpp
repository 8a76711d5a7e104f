#include "net/address.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "vmm/base/error.h"

namespace martlet {
namespace {

HostAddress fill(HostAddress address, bool ones) noexcept {
  for (std::size_t bit = address.prefix; bit < address.size() * 8; ++bit) {
    const auto mask = static_cast<std::uint8_t>(0x80U >> (bit % 8));
    auto& byte = address.bytes[bit / 8];
    byte = static_cast<std::uint8_t>(ones ? byte | mask : byte & ~mask);
  }
  return address;
}

bool is_for_hosts(const HostAddress& address) {
  if (address.family == AF_INET) {
    // RFC 1122 §3.2.1.3: this network, loopback, multicast and what is beyond.
    return address.bytes[0] != 0 && address.bytes[0] != 127 && address.bytes[0] < 224;
  }
  constexpr std::array<std::uint8_t, 15> kZeros{};
  const bool reserved = std::ranges::equal(std::span{address.bytes}.first(15), kZeros);  // :: and ::1, RFC 4291 §2.5
  return !reserved && address.bytes[0] != 0xff;
}

}  // namespace

std::size_t HostAddress::size() const noexcept { return family == AF_INET ? 4 : 16; }
HostAddress HostAddress::network() const noexcept { return fill(*this, false); }
HostAddress HostAddress::last() const noexcept { return fill(*this, true); }

HostAddress parse_host_address(std::string_view text, std::string_view what) {
  const auto slash = text.find('/');
  const std::string ip{text.substr(0, slash)};
  HostAddress address;
  for (const int family : {AF_INET, AF_INET6}) {
    if (::inet_pton(family, ip.c_str(), address.bytes.data()) == 1) {
      address.family = family;
    }
  }
  const auto prefix = slash == std::string_view::npos ? std::string_view{} : text.substr(slash + 1);
  const auto [end, error] = std::from_chars(prefix.data(), prefix.data() + prefix.size(), address.prefix);
  if (address.family == 0 || error != std::errc{} || end != prefix.data() + prefix.size() ||
      address.prefix > address.size() * 8 || address.prefix == 0) {
    throw HostError{
        fmt::format("{}{}: expected an address and its network's length, like 10.0.0.1/24 or fd00::1/64", what, text)};
  }
  const bool small = address.size() * 8 - address.prefix < 2;  // RFC 3021 and single hosts have no such addresses
  if (!is_for_hosts(address) || (!small && address == address.network()) ||
      (!small && address.family == AF_INET && address == address.last())) {
    throw HostError{
        fmt::format("{}{}: not an address that a host can have; the network's first is {}", what, text, [&] {
          auto first = address.network();
          first.bytes[first.size() - 1] |= 1U;
          return to_string(first);
        }())};
  }
  return address;
}

std::string text_of_ip(std::span<const std::uint8_t> address) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  return ::inet_ntop(address.size() == 4 ? AF_INET : AF_INET6, address.data(), text.data(), text.size()) == nullptr
             ? std::string{}
             : std::string{text.data()};
}

std::string to_string(const HostAddress& address) {
  return fmt::format("{}/{}", text_of_ip(address.address()), address.prefix);
}

}  // namespace martlet
