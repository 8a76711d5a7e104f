#include "net/host_forward.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <charconv>

#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet {

std::string to_string(const HostForward& forward) {
  const auto* const protocol = forward.protocol == HostForward::Protocol::Tcp ? "tcp" : "udp";
  const bool six = forward.address.find(':') != std::string::npos;
  const std::string address = forward.address.empty() ? ""
                              : six                   ? fmt::format("[{}]:", forward.address)
                                                      : forward.address + ":";
  return fmt::format("{}:{}{}:{}", protocol, address, forward.host, forward.guest);
}

int try_to_bind(const HostForward& forward) noexcept {
  const bool tcp = forward.protocol == HostForward::Protocol::Tcp;
  const bool six = forward.address.find(':') != std::string::npos;
  sockaddr_in four_name{};
  four_name.sin_family = AF_INET;
  four_name.sin_port = htons(forward.host);
  sockaddr_in6 six_name{};
  six_name.sin6_family = AF_INET6;
  six_name.sin6_port = htons(forward.host);
  if (!forward.address.empty()) {
    ::inet_pton(six ? AF_INET6 : AF_INET, forward.address.c_str(),
                six ? static_cast<void*>(&six_name.sin6_addr) : &four_name.sin_addr);
  }
  const Fd socket{::socket(six ? AF_INET6 : AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0)};
  if (!socket) {
    return errno;
  }
  // TCP's connections of yesterday (TIME_WAIT) are in nobody's way; UDP's sockets would share with it.
  const int reuse = tcp ? 1 : 0;
  ::setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse);
  const auto bound = six ? ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&six_name), sizeof six_name)
                         : ::bind(socket.get(), reinterpret_cast<const sockaddr*>(&four_name), sizeof four_name);
  return bound == 0 ? 0 : errno;
}

HostForward parse_host_forward(std::string_view text) {
  const auto refuse = [&](std::string_view why) {
    throw HostError{
        fmt::format("-n hostfwd={}: {}; expected PROTOCOL:[ADDRESS:]HOST-PORT:GUEST-PORT, as in "
                    "tcp:8080:80 or udp:127.0.0.1:5353:53",
                    text, why)};
  };
  std::string_view left = text;
  const auto take_last = [&] {
    const auto colon = left.rfind(':');
    if (colon == std::string_view::npos) {
      refuse("too few parts");
    }
    const auto last = left.substr(colon + 1);
    left = left.substr(0, colon);
    return last;
  };
  const auto take_port = [&] {
    const auto word = take_last();
    std::uint16_t port = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), port);
    if (error != std::errc{} || end != word.data() + word.size() || port == 0) {
      refuse(fmt::format("'{}' is no port, 1 to 65535", word));
    }
    return port;
  };
  HostForward forward;
  forward.guest = take_port();
  forward.host = take_port();
  const auto protocol = left.substr(0, left.find(':'));
  if (protocol != "tcp" && protocol != "udp") {
    refuse(fmt::format("'{}' is neither tcp nor udp", protocol));
  }
  forward.protocol = protocol == "tcp" ? HostForward::Protocol::Tcp : HostForward::Protocol::Udp;
  if (left.size() > protocol.size()) {
    auto address = left.substr(protocol.size() + 1);
    const bool six = address.size() > 2 && address.front() == '[' && address.back() == ']';
    if (six) {
      address = address.substr(1, address.size() - 2);
    }
    forward.address = address;
    std::array<unsigned char, sizeof(in6_addr)> ignored{};
    if (::inet_pton(six ? AF_INET6 : AF_INET, forward.address.c_str(), ignored.data()) != 1) {
      refuse(fmt::format("'{}' is no address of IPv4, nor one of IPv6 in brackets", address));
    }
  }
  return forward;
}

}  // namespace martlet
