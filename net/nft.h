#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "net/netlink.h"

namespace martlet {

/// Changes of nftables' tables of one family, made all together or not at all.
class NftBatch {
 public:
  enum class Family : std::uint8_t {
    Inet = 1,    ///< NFPROTO_INET: the host's IPv4 and IPv6
    Netdev = 5,  ///< NFPROTO_NETDEV: single interfaces
  };
  explicit NftBatch(NetlinkSocket& socket, Family family = Family::Netdev) : socket_{socket}, family_{family} {}

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
  /// Where in the way of the host's packets a chain is.
  struct Hook {
    const char* type = "filter";  ///< or "nat"
    std::uint32_t number = 0;     ///< NF_INET_*
    int priority = 0;             ///< before the chains with higher ones
  };
  void add_chain(const std::string& table, const std::string& chain, const Hook& hook);
  void add_rule(const std::string& table, const std::string& chain, const std::function<void(class NftRule&)>& build);

  /// 0, or the errno that the kernel answered: nothing has changed then.
  [[nodiscard]] int commit();

 private:
  void append(const NetlinkMessage& message);
  void mark(std::uint16_t type);

  [[nodiscard]] std::uint8_t family() const noexcept { return static_cast<std::uint8_t>(family_); }

  NetlinkSocket& socket_;
  Family family_;
  std::vector<char> bytes_;
  std::size_t last_ = 0;  // where the newest message begins
};

/// The parts of a rule, in the order of their execution: the rule ends at the first match that fails.
class NftRule {
 public:
  explicit NftRule(nlmsghdr* message) : message_{message} {}

  /// Takes bytes of the Ethernet header, with the VLAN tag where it was on the wire, to be matched.
  NftRule& ethernet(std::uint32_t offset, std::uint32_t length);
  /// Takes bytes of the IPv4 or IPv6 header.
  NftRule& network(std::uint32_t offset, std::uint32_t length);
  /// Goes on for IPv4 alone.
  NftRule& ipv4();
  /// Goes on for what came in, or goes out, by this interface.
  NftRule& comes_by(const std::string& interface);
  NftRule& goes_by(const std::string& interface);
  NftRule& goes_by_another_than(const std::string& interface);
  /// Goes on for what belongs to a connection that is known.
  NftRule& is_answer();
  NftRule& mask(std::span<const std::uint8_t> bits);
  NftRule& is(std::span<const std::uint8_t> value);
  NftRule& is_not(std::span<const std::uint8_t> value);
  /// As numbers in network byte order.
  NftRule& is_between(std::span<const std::uint8_t> first, std::span<const std::uint8_t> last);

  NftRule& count(const std::string& counter);
  void drop();
  void accept();
  /// With the address that this host has there.
  void masquerade();
  /// Out of this interface instead.
  void forward(int interface);

 private:
  NftRule& payload(std::uint32_t base, std::uint32_t offset, std::uint32_t length);
  NftRule& meta(std::uint32_t key);
  NftRule& compare(std::uint32_t how, std::span<const std::uint8_t> value);
  void verdict(std::uint32_t code);

  nlmsghdr* message_;
};

/// The tables of one family or of all, by name; empty where the kernel has no nftables. Throws HostError.
[[nodiscard]] std::vector<std::string> nft_tables(std::optional<NftBatch::Family> family = {});

/// How many frames the counter has seen; 0 when there is no such counter.
[[nodiscard]] std::uint64_t nft_counter(NetlinkSocket& socket, const std::string& table, const std::string& counter);

/// Calls `use` with each value that a rule of the chain compares something with. Throws HostError.
void each_nft_comparison(const std::string& table, const std::string& chain,
                         const std::function<void(std::span<const std::uint8_t>)>& use);

}  // namespace martlet
