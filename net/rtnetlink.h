#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "net/mac.h"
#include "net/netlink.h"

namespace martlet {

struct CloseSocket {
  void operator()(mnl_socket* socket) const noexcept;
};

/// A network interface as the kernel tells of it.
struct Link {
  int index = 0;
  std::string name{};
  std::string kind{};  ///< "bridge", "tun", "veth", …; empty for hardware and lo
  std::uint32_t mtu = 0;
  std::uint32_t flags = 0;  ///< IFF_UP and others
  int master = 0;           ///< index of the bridge or bond it is a port of; 0 when it is none
  MacAddress address{};     ///< of Ethernet
  std::string alias{};      ///< a remark (ip link set alias) that lives as long as the interface
  bool persistent = false;  ///< of TAPs: stays without a process that has it open
  struct Counters {
    std::uint64_t rx_packets = 0;
    std::uint64_t rx_bytes = 0;
    std::uint64_t rx_dropped = 0;
    std::uint64_t tx_packets = 0;
    std::uint64_t tx_bytes = 0;
    std::uint64_t tx_dropped = 0;
  };
  Counters counters{};
};

/// What to change of an interface; what is not there stays.
struct LinkChange {
  std::optional<MacAddress> address{};
  std::optional<std::string> alias{};
  std::optional<std::uint32_t> mtu{};
  std::optional<int> master{};  ///< 0 takes it off
  enum class State { Up, Down };
  std::optional<State> state{};
};

/// Talks rtnetlink (rtnetlink(7)) in this process's network namespace: looks interfaces up and changes them.
class Rtnetlink {
 public:
  Rtnetlink();  ///< Throws HostError when the host has no rtnetlink.

  /// Nothing when there is no such interface. Throws HostError on other trouble.
  [[nodiscard]] std::optional<Link> find(const std::string& name);
  /// All interfaces, as the kernel orders them. Throws HostError.
  [[nodiscard]] std::vector<Link> links();
  /// 0, or the errno that the kernel answered: part of the changes may have been made then.
  [[nodiscard]] int change(int index, const LinkChange& change);
  /// No IPv6 address of its own for a bridge port: the host is reached by the bridge or not at all.
  /// Returns as change() does; kernels without IPv6 refuse, and need it not.
  [[nodiscard]] int forbid_ipv6_address(int index);
  /// Deletes the interface. Returns as change() does.
  [[nodiscard]] int remove(int index);

  /// For requests that this class has no words for.
  [[nodiscard]] NetlinkSocket& socket() noexcept { return socket_; }

 private:
  NetlinkSocket socket_;
};

/// Hears of one interface of this process's network namespace being set up or down, or losing its carrier.
class LinkWatch {
 public:
  explicit LinkWatch(int index);  ///< Throws HostError.

  /// Readable when there is news; at first there is.
  [[nodiscard]] int fd() const noexcept;
  /// Takes the news: whether frames can pass. An interface that left the namespace is as it was last.
  [[nodiscard]] bool refresh() noexcept;

 private:
  /// The answer is news like any other. 0 or errno.
  int ask() noexcept;

  int index_;
  bool up_ = true;
  std::unique_ptr<mnl_socket, CloseSocket> socket_;
};

}  // namespace martlet
