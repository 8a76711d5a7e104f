#include "net/switch_filter.h"

#include <fmt/format.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv4.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "net/nft.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

using Family = NftBatch::Family;

// Where the IPv4 header has the sender, RFC 791 §3.1.
constexpr std::uint32_t kSender = 12;

std::string table_of(const std::string& name) { return "martlet-switch-" + name; }

void keep_host_away(NftBatch& batch, const std::string& name) {
  batch.add_ingress_chain(table_of(name), "from-guests", name);
  batch.add_rule(table_of(name), "from-guests", [](NftRule& it) { it.drop(); });
}

void forward(NftBatch& batch, const SwitchOptions& options) {
  const auto& name = options.name;
  batch.add_chain(table_of(name), "forward", {.number = NF_INET_FORWARD, .priority = NF_IP_PRI_FILTER});
  const auto rule = [&](const auto& build) { batch.add_rule(table_of(name), "forward", build); };
  // Where bridges ask the host's filters (br_netfilter), what guests send each other comes by here, too.
  rule([&](NftRule& it) { it.comes_by(name).goes_by(name).accept(); });
  if (options.nat) {
    rule([&](NftRule& it) { it.ipv4().comes_by(name).accept(); });
    rule([&](NftRule& it) { it.ipv4().goes_by(name).is_answer().accept(); });
  }
  rule([&](NftRule& it) { it.comes_by(name).drop(); });
  rule([&](NftRule& it) { it.goes_by(name).drop(); });
}

void translate(NftBatch& batch, const SwitchOptions& options) {
  const auto table = table_of(options.name);
  batch.add_chain(table, "nat", {.type = "nat", .number = NF_INET_POST_ROUTING, .priority = NF_IP_PRI_NAT_SRC});
  for (const auto& address : options.addresses) {
    if (address.family == AF_INET) {
      auto mask = address;
      mask.bytes.fill(0xff);
      const auto network = address.network();
      const auto ones = mask.network();
      batch.add_rule(table, "nat", [&](NftRule& it) {
        it.ipv4().goes_by_another_than(options.name).network(kSender, 4).mask(ones.address()).is(network.address());
        it.masquerade();
      });
    }
  }
}

}  // namespace

void add_switch_filter(const SwitchOptions& options) {
  const bool internal = options.mode == SwitchMode::Internal;
  NetlinkSocket socket{NETLINK_NETFILTER};
  NftBatch batch{socket, internal ? Family::Inet : Family::Netdev};
  batch.add_table(table_of(options.name), NftBatch::Life::Kept);
  if (internal) {
    forward(batch, options);
  } else {
    keep_host_away(batch, options.name);
  }
  if (options.nat) {
    translate(batch, options);
  }
  if (const int error = batch.commit(); error != 0) {
    const auto what = fmt::format("switch {}: cannot make its filter (nftables; modprobe nf_tables{} may help)",
                                  options.name, options.nat ? " nft_masq nft_ct" : "");
    fail_errno(error, what);
  }
}

bool has_switch_filter(const std::string& name) {
  const auto tables = nft_tables();
  return std::ranges::find(tables, table_of(name)) != tables.end();
}

void remove_switch_filter(const std::string& name) {
  for (const auto family : {Family::Inet, Family::Netdev}) {
    NetlinkSocket socket{NETLINK_NETFILTER};
    NftBatch batch{socket, family};
    batch.delete_table(table_of(name));
    const int error = batch.commit();
    const bool none = error == ENOENT || error == EOPNOTSUPP || error == EAFNOSUPPORT || error == EINVAL;
    if (error == EPERM) {
      throw HostError{fmt::format("switch {}: cannot take its filter away: needs CAP_NET_ADMIN; run as root", name)};
    }
    if (error != 0 && !none) {
      fail_errno(error, fmt::format("switch {}: cannot take its filter away (nftables)", name));
    }
  }
}

}  // namespace martlet
