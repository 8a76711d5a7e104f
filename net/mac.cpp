#include "net/mac.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <charconv>

#include "vmm/base/error.h"

namespace martlet {

MacAddress parse_mac(std::string_view text, std::string_view what) {
  const auto refuse = [&](std::string_view why) {
    throw HostError{fmt::format("{}{}: {}; expected one like 52:54:00:12:34:56", what, text, why)};
  };
  MacAddress mac{};
  if (text.size() != 17) {
    refuse("not a MAC address");
  }
  for (std::size_t i = 0; i < mac.size(); ++i) {
    const char* const digits = text.data() + 3 * i;
    const auto [end, error] = std::from_chars(digits, digits + 2, mac[i], 16);
    if (error != std::errc{} || end != digits + 2 || (i < 5 && digits[2] != ':')) {
      refuse("not a MAC address");
    }
  }
  if (is_multicast(mac)) {
    refuse("a multicast address (the first byte is odd) belongs to no single guest");
  }
  if (mac == MacAddress{}) {
    refuse("the zero address belongs to nobody");
  }
  return mac;
}

std::string to_string(const MacAddress& mac) { return fmt::format("{:02x}", fmt::join(mac, ":")); }

MacAddress random_mac() {
  MacAddress mac{};
  check(static_cast<int>(::getrandom(mac.data(), mac.size(), 0)), "getrandom");
  mac[0] = static_cast<std::uint8_t>((mac[0] & 0xfcU) | 0x02U);  // IEEE 802: local, unicast
  return mac;
}

}  // namespace martlet
