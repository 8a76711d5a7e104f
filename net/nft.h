#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "net/netlink.h"

namespace martlet {

/// Changes of nftables' tables for single interfaces (family netdev), made all together or not at all.
class NftBatch {
 public:
  explicit NftBatch(NetlinkSocket& socket) : socket_{socket} {}

  enum class Life {
    Socket,  ///< until the socket is closed, so with this process however it ends; nobody else may change it
    Kept,    ///< until it is deleted
  };
  void add_table(const std::string& table, Life life);
  void delete_table(const std::string& table);
  /// A counter that rules refer to by name.
  void add_counter(const std::string& table, const std::string& counter);
  /// What `interface` receives goes through this chain's rules, and on unless they say otherwise.
  void add_ingress_chain(const std::string& table, const std::string& chain, const std::string& interface);
  void add_rule(const std::string& table, const std::string& chain, const std::function<void(class NftRule&)>& build);

  /// 0, or the errno that the kernel answered: nothing has changed then.
  [[nodiscard]] int commit();

 private:
  void append(const NetlinkMessage& message);
  void mark(std::uint16_t type);

  NetlinkSocket& socket_;
  std::vector<char> bytes_;
  std::size_t last_ = 0;  // where the newest message begins
};

/// The parts of a rule, in the order of their execution: the rule ends at the first match that fails.
class NftRule {
 public:
  explicit NftRule(nlmsghdr* message) : message_{message} {}

  /// Takes bytes of the Ethernet header, with the VLAN tag where it was on the wire, to be matched.
  NftRule& ethernet(std::uint32_t offset, std::uint32_t length);
  NftRule& mask(std::span<const std::uint8_t> bits);
  NftRule& is(std::span<const std::uint8_t> value);
  NftRule& is_not(std::span<const std::uint8_t> value);
  /// As numbers in network byte order.
  NftRule& is_between(std::span<const std::uint8_t> first, std::span<const std::uint8_t> last);

  NftRule& count(const std::string& counter);
  void drop();
  void accept();
  /// Out of this interface instead.
  void forward(int interface);

 private:
  NftRule& compare(std::uint32_t how, std::span<const std::uint8_t> value);
  void verdict(std::uint32_t code);

  nlmsghdr* message_;
};

/// The tables of family netdev, by name; empty where the kernel has no nftables. Throws HostError.
[[nodiscard]] std::vector<std::string> nft_tables(NetlinkSocket& socket);

/// How many frames the counter has seen; 0 when there is no such counter.
[[nodiscard]] std::uint64_t nft_counter(NetlinkSocket& socket, const std::string& table, const std::string& counter);

/// Calls `use` with each value that a rule of the chain compares something with; `use` asks the socket for nothing.
/// Throws HostError.
void each_nft_comparison(NetlinkSocket& socket, const std::string& table, const std::string& chain,
                         const std::function<void(std::span<const std::uint8_t>)>& use);

}  // namespace martlet
