#include "net/port_guard.h"

#include <fmt/format.h>
#include <linux/netlink.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <string_view>

#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr const char* kChain = "guest";
constexpr const char* kForeignSenders = "foreign-senders";
constexpr const char* kForeignVlans = "foreign-vlans";

// IEEE 802.3 §3.1.1, 802.1Q §9.6.
constexpr std::uint32_t kSender = 6;
constexpr std::uint32_t kType = 12;
constexpr std::uint32_t kTag = 14;
constexpr std::uint32_t kTypeInTag = 16;
using Word = std::array<std::uint8_t, 2>;
constexpr Word kVlanTag = {0x81, 0x00};
constexpr Word kServiceTag = {0x88, 0xa8};
constexpr Word kVlanId = {0x0f, 0xff};  // without priority and drop eligibility

Word word(std::uint16_t number) noexcept {
  return {static_cast<std::uint8_t>(number >> 8U), static_cast<std::uint8_t>(number)};
}

/// Names come again, with the next interface; indexes never do. So a guard that is just dying is no obstacle.
std::string table_of(const std::string& port, int index) { return fmt::format("martlet-{}-{}", port, index); }

/// The tables of ports of this name: one, but for those whose port was deleted by others.
std::vector<std::string> tables_of(const std::string& port) {
  auto tables = nft_tables(NftBatch::Family::Netdev);
  const auto prefix = fmt::format("martlet-{}-", port);
  std::erase_if(tables, [&](const std::string& table) {
    return !table.starts_with(prefix) || table.find_first_not_of("0123456789", prefix.size()) != std::string::npos;
  });
  return tables;
}

void add_rules(NftBatch& batch, const std::string& table, const PortGuard::Port& port) {
  const auto rule = [&](const auto& build) { batch.add_rule(table, kChain, build); };
  const auto pass = [&](NftRule& it) { port.through != 0 ? it.forward(port.through) : it.accept(); };
  if (port.guest) {
    rule([&](NftRule& it) { it.ethernet(kSender, 6).is_not(*port.guest).count(kForeignSenders).drop(); });
    rule([&](NftRule& it) { it.ethernet(kType, 2).is(kServiceTag).count(kForeignVlans).drop(); });
    if (!port.vlans.is_access()) {
      // A tag in a tag: where the outer one is another port's native VLAN, that port would send the inner one out.
      for (const auto& inner : {kVlanTag, kServiceTag}) {
        rule([&](NftRule& it) {
          it.ethernet(kType, 2).is(kVlanTag).ethernet(kTypeInTag, 2).is(inner).count(kForeignVlans).drop();
        });
      }
      for (const auto& range : port.vlans.ranges) {
        rule([&](NftRule& it) {
          it.ethernet(kType, 2).is(kVlanTag).ethernet(kTag, 2).mask(kVlanId);
          pass(it.is_between(word(range.first), word(range.last)));
        });
      }
    }
    rule([&](NftRule& it) { it.ethernet(kType, 2).is(kVlanTag).count(kForeignVlans).drop(); });
  }
  rule(pass);
}

}  // namespace

PortGuard::PortGuard(const Port& port, Life life) : socket_{NETLINK_NETFILTER} {
  const auto table = table_of(port.name, port.index);
  NftBatch batch{socket_};
  batch.add_table(table, life);
  batch.add_counter(table, kForeignSenders);
  batch.add_counter(table, kForeignVlans);
  batch.add_ingress_chain(table, kChain, port.name);
  add_rules(batch, table, port);
  switch (const int error = batch.commit(); error) {
    case 0:
      return;
    case EPERM:
      throw HostError{fmt::format("{}: filtering what the guest sends needs CAP_NET_ADMIN", port.name)};
    case EINVAL:
    case EOPNOTSUPP:
    case EAFNOSUPPORT:
    case ENOENT:
      throw HostError{
          fmt::format("{}: this host's kernel cannot filter what the guest sends; load nftables (modprobe nf_tables; "
                      "Linux 5.12 or newer), or do without: spoof=allow",
                      port.name)};
    default:
      fail_errno(error, fmt::format("{}: cannot filter what the guest sends (nftables)", port.name));
  }
}

std::optional<PortGuard::State> PortGuard::read(const std::string& port, int index) {
  const auto table = table_of(port, index);
  std::optional<State> state;
  each_nft_comparison(table, kChain, [&](std::span<const std::uint8_t> value) {
    if (MacAddress mac{}; value.size() == mac.size()) {  // nothing else is as long
      std::ranges::copy(value, mac.begin());
      state = State{.guest = mac};
    }
  });
  if (state) {
    NetlinkSocket socket{NETLINK_NETFILTER};
    state->foreign_senders = nft_counter(socket, table, kForeignSenders);
    state->foreign_vlans = nft_counter(socket, table, kForeignVlans);
  }
  return state;
}

std::vector<int> PortGuard::indexes(const std::string& port) {
  std::vector<int> indexes;
  for (const auto& table : tables_of(port)) {
    const auto* const digits = table.data() + table.rfind('-') + 1;
    std::from_chars(digits, table.data() + table.size(), indexes.emplace_back());
  }
  return indexes;
}

void PortGuard::remove(const std::string& port, int index) {
  NetlinkSocket socket{NETLINK_NETFILTER};
  NftBatch batch{socket};
  batch.delete_table(table_of(port, index));
  if (const int error = batch.commit(); error != 0 && error != ENOENT) {
    fail_errno(error, fmt::format("{}: cannot take its filter away (nftables)", port));
  }
}

}  // namespace martlet
