#pragma once
// Who reaches whom: parties send to each other by ARP, IPv4, IPv6 and broadcast, and what may not arrive is seen not
// to, by a capture at the far end.

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "net/rtnetlink.h"
#include "tests/net/world.h"

namespace martlet::test {

inline constexpr std::uint16_t kPort = 7777;

/// One who sends and listens: in a namespace, or in the test's own, the host's.
struct Party {
  const Namespace* where = nullptr;
  std::string device{};  ///< guests' and others' only
  std::string ip4{};
  std::string ip6{};
  std::string broadcast{};

  template <class Body>
  auto inside(Body body) const {
    return where != nullptr ? where->inside(body) : body();
  }
};
using Parties = std::map<std::string, Party>;

inline Fd open_socket(int family, int type, int protocol = 0) {
  return Fd{check(::socket(family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol), "socket")};
}

/// All that is waiting in a socket.
inline std::vector<std::string> read_all(const Fd& socket) {
  std::vector<std::string> all;
  std::array<char, 2048> bytes{};
  for (ssize_t got = 0; (got = ::recv(socket.get(), bytes.data(), bytes.size(), 0)) >= 0;) {
    all.emplace_back(bytes.data(), static_cast<std::size_t>(got));
  }
  return all;
}

/// What a party hears: its IPv4 and IPv6, and its wire.
class Ears {
 public:
  explicit Ears(const Party& party) {
    party.inside([&] {
      for (const int family : {AF_INET, AF_INET6}) {
        ip_.push_back(open_socket(family, SOCK_DGRAM));
        const int yes = 1;
        sockaddr_in6 any{.sin6_family = static_cast<sa_family_t>(family), .sin6_port = htons(kPort)};
        if (family == AF_INET6) {
          ::setsockopt(ip_.back().get(), IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof yes);
        }
        check(::bind(ip_.back().get(), reinterpret_cast<const sockaddr*>(&any), sizeof any), "bind");
      }
      if (party.where != nullptr) {
        wire_ = open_socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
        sockaddr_ll on{.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
        on.sll_ifindex = Rtnetlink{}.find(party.device)->index;
        check(::bind(wire_.get(), reinterpret_cast<const sockaddr*>(&on), sizeof on), "bind");
      }
      return 0;
    });
  }
  /// Takes what has come.
  void listen() {
    for (const auto& socket : ip_) {
      for (auto& text : read_all(socket)) {
        heard_.insert(std::move(text));
      }
    }
    for (auto& frame : wire_ ? read_all(wire_) : std::vector<std::string>{}) {
      frames_.push_back(std::move(frame));
    }
  }
  [[nodiscard]] bool heard(const std::string& text) const { return heard_.contains(text); }
  /// Whether its wire carried this, to it or from it.
  [[nodiscard]] bool seen(const std::string& text) const {
    return std::ranges::any_of(frames_, [&](const auto& frame) { return frame.find(text) != std::string::npos; });
  }
  /// Whether its wire carried an ARP packet of this sender's (RFC 826).
  [[nodiscard]] bool seen_arp_of(const std::string& ip4) const {
    std::string sender(4, '\0');
    ::inet_pton(AF_INET, ip4.c_str(), sender.data());
    return std::ranges::any_of(frames_, [&](const auto& frame) {
      return frame.size() >= 42 && frame.substr(12, 2) == "\x08\x06" && frame.substr(28, 4) == sender;
    });
  }

 private:
  std::vector<Fd> ip_;
  Fd wire_;
  std::set<std::string> heard_;
  std::vector<std::string> frames_;
};

/// "a>b 4" and the round, in brackets so that none is part of another.
inline std::string label(unsigned round, const std::string& from, const std::string& to, char how) {
  return fmt::format("[{} {}>{} {}]", round, from, to, how);
}

inline void send(const Party& from, const std::string& to, const std::string& text, bool broadcast) {
  from.inside([&] {
    const bool six = to.find(':') != std::string::npos;
    const auto socket = open_socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM);
    const int yes = 1;
    ::setsockopt(socket.get(), SOL_SOCKET, SO_BROADCAST, &yes, sizeof yes);
    if (broadcast && from.where != nullptr) {  // a guest may send whatever it wants
      ::setsockopt(socket.get(), SOL_SOCKET, SO_BINDTODEVICE, from.device.data(),
                   static_cast<socklen_t>(from.device.size()));
    }
    sockaddr_in6 target6{.sin6_family = AF_INET6, .sin6_port = htons(kPort)};
    sockaddr_in target4{.sin_family = AF_INET, .sin_port = htons(kPort)};
    ::inet_pton(six ? AF_INET6 : AF_INET, to.c_str(),
                six ? static_cast<void*>(&target6.sin6_addr) : static_cast<void*>(&target4.sin_addr));
    const auto* const target =
        six ? reinterpret_cast<const sockaddr*>(&target6) : reinterpret_cast<sockaddr*>(&target4);
    // Where there is no way to go, that is an answer, too.
    return ::sendto(socket.get(), text.data(), text.size(), 0, target, six ? sizeof target6 : sizeof target4);
  });
}

/// Whether `from` has learnt the Ethernet address of `to`: its question and the answer have arrived.
inline bool knows(const Party& from, const Party& to) {
  return from.inside([&] {
    return shell_says(fmt::format("ip neigh show to {} {}{} | grep -q lladdr", to.ip4,
                                  from.device.empty() ? "" : "dev ", from.device));
  });
}

/// By pair: the ways that arrive.
using Reached = std::map<std::string, std::string>;

/// How Ethernet addresses are known: asked for, or given, so that frames go out though nobody would have answered.
enum class Neighbours { Asked, Given };

/// Tells everybody everybody's Ethernet address, as if all were on one wire.
inline void give_neighbours(const Parties& parties) {
  const auto device_of = [](const Party& party) { return party.device.empty() ? std::string{"br0"} : party.device; };
  for (const auto& [name, to] : parties) {
    const auto mac = to.inside([&] { return to_string(Rtnetlink{}.find(device_of(to))->address); });
    for (const auto& [other, from] : parties) {
      if (name != other) {
        from.inside([&] {
          for (const auto& ip : {to.ip4, to.ip6}) {
            run_shell(fmt::format("ip neigh replace {} lladdr {} dev {} nud permanent", ip, mac, device_of(from)));
          }
          return 0;
        });
      }
    }
  }
}

/// Sends everything to everybody and tells what arrived: "a>b A46B" says that ARP, IPv4, IPv6 and broadcasts did.
/// Where neighbours are given ARP is none of it.
inline Reached reach(const Parties& parties, Reached expected, Neighbours neighbours) {
  static unsigned round = 0;  // what is late is not taken for what comes after
  ++round;
  const bool given = neighbours == Neighbours::Given;
  for (const auto& [name, party] : parties) {
    party.inside([] {
      run_shell("ip neigh flush all; ip neigh flush all nud permanent");
      return 0;
    });
  }
  if (given) {
    give_neighbours(parties);
    for (auto& [pair, ways] : expected) {
      std::erase(ways, 'A');
    }
  }
  std::map<std::string, Ears> ears;
  for (const auto& [name, party] : parties) {
    ears.try_emplace(name, party);
  }
  const auto each_pair = [&](const auto& use) {
    for (const auto& [pair, ways] : expected) {
      const auto from = pair.substr(0, pair.find('>'));
      const auto to = pair.substr(pair.find('>') + 1);
      use(pair, from, to);
    }
  };
  each_pair([&](const std::string&, const std::string& from, const std::string& to) {
    const auto& sender = parties.at(from);
    send(sender, parties.at(to).ip4, label(round, from, to, '4'), false);
    send(sender, parties.at(to).ip6, label(round, from, to, '6'), false);
    const auto everybody = sender.where == nullptr ? parties.at(to).broadcast : std::string{"255.255.255.255"};
    send(sender, everybody, label(round, from, to, 'B'), true);
  });
  const auto heard = [&] {
    Reached all;
    for (auto& [name, ear] : ears) {
      ear.listen();
    }
    each_pair([&](const std::string& pair, const std::string& from, const std::string& to) {
      auto& ways = all[pair];
      ways += !given && knows(parties.at(from), parties.at(to)) ? "A" : "";
      for (const char way : {'4', '6', 'B'}) {
        ways += ears.at(to).heard(label(round, from, to, way)) ? std::string{way} : "";
      }
    });
    return all;
  };
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds{10};
  while (heard() != expected && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds{20});
  }
  std::this_thread::sleep_for(std::chrono::milliseconds{300});  // for what may not come and yet does
  const auto result = heard();
  each_pair([&](const std::string& pair, const std::string& from, const std::string& to) {
    const auto& ways = expected.at(pair);
    for (const char way : {'4', '6', 'B'}) {
      const bool may = ways.find(way) != std::string::npos;
      EXPECT_FALSE(!may && ears.at(to).seen(label(round, from, to, way))) << pair << " by " << way << " is on its wire";
      if (given && parties.at(from).where != nullptr) {
        EXPECT_TRUE(ears.at(from).seen(label(round, from, to, way))) << pair << " by " << way << " was never sent";
      }
    }
    const bool may_ask = given || ways.find('A') != std::string::npos;
    EXPECT_FALSE(!may_ask && ears.at(to).seen_arp_of(parties.at(from).ip4)) << pair << ": ARP is on its wire";
  });
  return result;
}

}  // namespace martlet::test
