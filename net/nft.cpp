#include "net/nft.h"

#include <arpa/inet.h>
#include <endian.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <net/if.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "vmm/base/error.h"

namespace martlet {
namespace {

// Before whatever else the host has to say about the frames.
constexpr int kPriority = -300;

nfgenmsg& put_family(NetlinkMessage& message, std::uint8_t family, std::uint16_t resource = 0) {
  auto& header = message.extra<nfgenmsg>();
  header.nfgen_family = family;
  header.version = NFNETLINK_V0;
  header.res_id = htons(resource);
  return header;
}

constexpr std::uint16_t type_of(int type) noexcept {
  return static_cast<std::uint16_t>((NFNL_SUBSYS_NFTABLES << 8) | type);
}

/// All numbers of nftables are in network byte order.
void put_number(nlmsghdr* message, std::uint16_t attribute, std::uint32_t number) {
  mnl_attr_put_u32(message, attribute, htonl(number));
}
void put_text(nlmsghdr* message, std::uint16_t attribute, const std::string& text) {
  mnl_attr_put_strz(message, attribute, text.c_str());
}
template <class Fill>
void put_nest(nlmsghdr* message, std::uint16_t attribute, Fill fill) {
  auto* const nest = mnl_attr_nest_start(message, attribute);
  fill();
  mnl_attr_nest_end(message, nest);
}
void put_value(nlmsghdr* message, std::uint16_t attribute, std::span<const std::uint8_t> value) {
  put_nest(message, attribute, [&] { mnl_attr_put(message, NFTA_DATA_VALUE, value.size(), value.data()); });
}
template <class Fill>
void put_expression(nlmsghdr* message, const char* name, Fill fill) {
  put_nest(message, NFTA_LIST_ELEM, [&] {
    mnl_attr_put_strz(message, NFTA_EXPR_NAME, name);
    put_nest(message, NFTA_EXPR_DATA, fill);
  });
}

/// An interface's name as the kernel compares it.
std::array<std::uint8_t, IFNAMSIZ> padded(const std::string& interface) {
  std::array<std::uint8_t, IFNAMSIZ> name{};
  std::copy_n(interface.begin(), std::min(interface.size(), name.size() - 1), name.begin());
  return name;
}

/// A dump of what nftables has of one kind; `fill` narrows it down. A kernel without nftables has nothing.
template <class Fill>
std::vector<NetlinkAnswer> dump(int type, std::uint8_t family, Fill fill) {
  NetlinkMessage message{type_of(type)};
  put_family(message, family);
  fill(message.header());
  std::vector<NetlinkAnswer> answers;
  const int error = dump(message, NETLINK_NETFILTER, answers);
  if (error == EPERM) {
    throw HostError{"nftables: reading its tables needs CAP_NET_ADMIN; run as root"};
  }
  if (error != 0 && error != ENOENT && error != EINVAL) {
    fail_errno(error, "nftables: cannot read its tables");
  }
  return answers;
}

}  // namespace

// --- Changes

void NftBatch::append(const NetlinkMessage& message) {
  const auto* const from = reinterpret_cast<const char*>(message.header());
  if (bytes_.empty() && message.header()->nlmsg_type != NFNL_MSG_BATCH_BEGIN) {
    mark(NFNL_MSG_BATCH_BEGIN);
  }
  last_ = bytes_.size();
  bytes_.insert(bytes_.end(), from, from + message.header()->nlmsg_len);
}

void NftBatch::mark(std::uint16_t type) {
  NetlinkMessage message{type};
  put_family(message, AF_UNSPEC, NFNL_SUBSYS_NFTABLES);
  append(message);
}

void NftBatch::add_table(const std::string& table, Life life) {
  NetlinkMessage message{type_of(NFT_MSG_NEWTABLE), NLM_F_CREATE | NLM_F_EXCL};
  put_family(message, family());
  put_text(message.header(), NFTA_TABLE_NAME, table);
  put_number(message.header(), NFTA_TABLE_FLAGS, life == Life::Socket ? NFT_TABLE_F_OWNER : 0);
  append(message);
}

void NftBatch::delete_table(const std::string& table) {
  NetlinkMessage message{type_of(NFT_MSG_DELTABLE)};
  put_family(message, family());
  put_text(message.header(), NFTA_TABLE_NAME, table);
  append(message);
}

void NftBatch::add_counter(const std::string& table, const std::string& counter) {
  NetlinkMessage message{type_of(NFT_MSG_NEWOBJ), NLM_F_CREATE};
  put_family(message, family());
  put_text(message.header(), NFTA_OBJ_TABLE, table);
  put_text(message.header(), NFTA_OBJ_NAME, counter);
  put_number(message.header(), NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
  put_nest(message.header(), NFTA_OBJ_DATA, [] {});
  append(message);
}

void NftBatch::add_ingress_chain(const std::string& table, const std::string& chain, const std::string& interface) {
  NetlinkMessage message{type_of(NFT_MSG_NEWCHAIN), NLM_F_CREATE};
  put_family(message, family());
  auto* const header = message.header();
  put_text(header, NFTA_CHAIN_TABLE, table);
  put_text(header, NFTA_CHAIN_NAME, chain);
  put_nest(header, NFTA_CHAIN_HOOK, [&] {
    put_number(header, NFTA_HOOK_HOOKNUM, NF_NETDEV_INGRESS);
    put_number(header, NFTA_HOOK_PRIORITY, static_cast<std::uint32_t>(kPriority));
    put_text(header, NFTA_HOOK_DEV, interface);
  });
  put_text(header, NFTA_CHAIN_TYPE, "filter");
  append(message);
}

void NftBatch::add_chain(const std::string& table, const std::string& chain, const Hook& hook) {
  NetlinkMessage message{type_of(NFT_MSG_NEWCHAIN), NLM_F_CREATE};
  put_family(message, family());
  auto* const header = message.header();
  put_text(header, NFTA_CHAIN_TABLE, table);
  put_text(header, NFTA_CHAIN_NAME, chain);
  put_nest(header, NFTA_CHAIN_HOOK, [&] {
    put_number(header, NFTA_HOOK_HOOKNUM, hook.number);
    put_number(header, NFTA_HOOK_PRIORITY, static_cast<std::uint32_t>(hook.priority));
  });
  put_text(header, NFTA_CHAIN_TYPE, hook.type);
  append(message);
}

void NftBatch::add_rule(const std::string& table, const std::string& chain,
                        const std::function<void(NftRule&)>& build) {
  NetlinkMessage message{type_of(NFT_MSG_NEWRULE), NLM_F_CREATE | NLM_F_APPEND};
  put_family(message, family());
  put_text(message.header(), NFTA_RULE_TABLE, table);
  put_text(message.header(), NFTA_RULE_CHAIN, chain);
  put_nest(message.header(), NFTA_RULE_EXPRESSIONS, [&] {
    NftRule rule{message.header()};
    build(rule);
  });
  append(message);
}

int NftBatch::commit() {
  if (bytes_.empty()) {
    return 0;
  }
  // Errors are answered in any case, and success once: by the last message's acknowledgement.
  reinterpret_cast<nlmsghdr*>(bytes_.data() + last_)->nlmsg_flags |= NLM_F_ACK;  // NOLINT: netlink aligns messages
  mark(NFNL_MSG_BATCH_END);
  if (mnl_socket_sendto(socket_.handle(), bytes_.data(), bytes_.size()) < 0) {
    return errno;
  }
  bytes_.clear();
  int result = 0;
  bool answered = false;
  for (;;) {  // the kernel has answered before it returned
    alignas(nlmsghdr) std::array<char, 16384> buffer{};
    const auto got = ::recv(mnl_socket_get_fd(socket_.handle()), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) {
      continue;
    }
    if (got <= 0) {
      return answered ? result : EPROTO;
    }
    answered = true;
    int left = static_cast<int>(got);
    for (const auto* answer = reinterpret_cast<const nlmsghdr*>(buffer.data()); mnl_nlmsg_ok(answer, left);
         answer = mnl_nlmsg_next(answer, &left)) {
      if (answer->nlmsg_type == NLMSG_ERROR && result == 0) {
        result = -static_cast<const nlmsgerr*>(mnl_nlmsg_get_payload(answer))->error;
      }
    }
  }
}

// --- Rules

NftRule& NftRule::payload(std::uint32_t base, std::uint32_t offset, std::uint32_t length) {
  put_expression(message_, "payload", [&] {
    put_number(message_, NFTA_PAYLOAD_DREG, NFT_REG_1);
    put_number(message_, NFTA_PAYLOAD_BASE, base);
    put_number(message_, NFTA_PAYLOAD_OFFSET, offset);
    put_number(message_, NFTA_PAYLOAD_LEN, length);
  });
  return *this;
}

NftRule& NftRule::ethernet(std::uint32_t offset, std::uint32_t length) {
  return payload(NFT_PAYLOAD_LL_HEADER, offset, length);
}
NftRule& NftRule::network(std::uint32_t offset, std::uint32_t length) {
  return payload(NFT_PAYLOAD_NETWORK_HEADER, offset, length);
}

NftRule& NftRule::meta(std::uint32_t key) {
  put_expression(message_, "meta", [&] {
    put_number(message_, NFTA_META_DREG, NFT_REG_1);
    put_number(message_, NFTA_META_KEY, key);
  });
  return *this;
}

NftRule& NftRule::ipv4() { return meta(NFT_META_NFPROTO).is(std::array<std::uint8_t, 1>{NFPROTO_IPV4}); }
NftRule& NftRule::comes_by(const std::string& interface) { return meta(NFT_META_IIFNAME).is(padded(interface)); }
NftRule& NftRule::goes_by(const std::string& interface) { return meta(NFT_META_OIFNAME).is(padded(interface)); }
NftRule& NftRule::goes_by_another_than(const std::string& interface) {
  return meta(NFT_META_OIFNAME).is_not(padded(interface));
}

NftRule& NftRule::is_answer() {
  put_expression(message_, "ct", [&] {
    put_number(message_, NFTA_CT_DREG, NFT_REG_1);
    put_number(message_, NFTA_CT_KEY, NFT_CT_STATE);
  });
  // NF_CT_STATE_BIT of IP_CT_ESTABLISHED and IP_CT_RELATED, in a register as the kernel's CPU has it.
  constexpr std::uint32_t kKnown = 1U << 1U | 1U << 2U;
  std::array<std::uint8_t, sizeof kKnown> bits{};
  std::memcpy(bits.data(), &kKnown, sizeof kKnown);
  return mask(bits).is_not(std::array<std::uint8_t, sizeof kKnown>{});
}

NftRule& NftRule::mask(std::span<const std::uint8_t> bits) {
  constexpr std::array<std::uint8_t, 16> kNothing{};
  put_expression(message_, "bitwise", [&] {
    put_number(message_, NFTA_BITWISE_SREG, NFT_REG_1);
    put_number(message_, NFTA_BITWISE_DREG, NFT_REG_1);
    put_number(message_, NFTA_BITWISE_LEN, static_cast<std::uint32_t>(bits.size()));
    put_value(message_, NFTA_BITWISE_MASK, bits);
    put_value(message_, NFTA_BITWISE_XOR, std::span{kNothing}.first(bits.size()));
  });
  return *this;
}

NftRule& NftRule::compare(std::uint32_t how, std::span<const std::uint8_t> value) {
  put_expression(message_, "cmp", [&] {
    put_number(message_, NFTA_CMP_SREG, NFT_REG_1);
    put_number(message_, NFTA_CMP_OP, how);
    put_value(message_, NFTA_CMP_DATA, value);
  });
  return *this;
}

NftRule& NftRule::is(std::span<const std::uint8_t> value) { return compare(NFT_CMP_EQ, value); }
NftRule& NftRule::is_not(std::span<const std::uint8_t> value) { return compare(NFT_CMP_NEQ, value); }

NftRule& NftRule::is_between(std::span<const std::uint8_t> first, std::span<const std::uint8_t> last) {
  put_expression(message_, "range", [&] {
    put_number(message_, NFTA_RANGE_SREG, NFT_REG_1);
    put_number(message_, NFTA_RANGE_OP, NFT_RANGE_EQ);
    put_value(message_, NFTA_RANGE_FROM_DATA, first);
    put_value(message_, NFTA_RANGE_TO_DATA, last);
  });
  return *this;
}

NftRule& NftRule::count(const std::string& counter) {
  put_expression(message_, "objref", [&] {
    put_number(message_, NFTA_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
    put_text(message_, NFTA_OBJREF_IMM_NAME, counter);
  });
  return *this;
}

void NftRule::verdict(std::uint32_t code) {
  put_expression(message_, "immediate", [&] {
    put_number(message_, NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
    put_nest(message_, NFTA_IMMEDIATE_DATA,
             [&] { put_nest(message_, NFTA_DATA_VERDICT, [&] { put_number(message_, NFTA_VERDICT_CODE, code); }); });
  });
}

void NftRule::drop() { verdict(NF_DROP); }
void NftRule::accept() { verdict(NF_ACCEPT); }
void NftRule::masquerade() {
  put_expression(message_, "masq", [] {});
}

void NftRule::forward(int interface) {
  std::array<std::uint8_t, sizeof interface> index{};
  std::memcpy(index.data(), &interface, sizeof interface);  // a register as the kernel's CPU has it
  put_expression(message_, "immediate", [&] {
    put_number(message_, NFTA_IMMEDIATE_DREG, NFT_REG_1);
    put_value(message_, NFTA_IMMEDIATE_DATA, index);
  });
  put_expression(message_, "fwd", [&] { put_number(message_, NFTA_FWD_SREG_DEV, NFT_REG_1); });
}

// --- What there is

std::vector<std::string> nft_tables(std::optional<NftBatch::Family> family) {
  std::vector<std::string> tables;
  const auto number = family ? static_cast<std::uint8_t>(*family) : std::uint8_t{NFPROTO_UNSPEC};
  for (const auto& answer : dump(NFT_MSG_GETTABLE, number, [](nlmsghdr*) {})) {
    answer.each<nfgenmsg>([&](const nlattr* attribute) {
      if (mnl_attr_get_type(attribute) == NFTA_TABLE_NAME && is_string(attribute)) {
        tables.emplace_back(mnl_attr_get_str(attribute));
      }
    });
  }
  return tables;
}

std::uint64_t nft_counter(NetlinkSocket& socket, const std::string& table, const std::string& counter) {
  std::uint64_t packets = 0;
  NetlinkMessage message{type_of(NFT_MSG_GETOBJ)};
  put_family(message, NFPROTO_NETDEV);
  put_text(message.header(), NFTA_OBJ_TABLE, table);
  put_text(message.header(), NFTA_OBJ_NAME, counter);
  put_number(message.header(), NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
  [[maybe_unused]] const int error = socket.request(message, [&](const nlmsghdr* answer) {
    each_attribute(answer, sizeof(nfgenmsg), [&](const nlattr* attribute) {
      if (mnl_attr_get_type(attribute) == NFTA_OBJ_DATA) {
        each_nested(attribute, [&](const nlattr* nested) {
          if (mnl_attr_get_type(nested) == NFTA_COUNTER_PACKETS && mnl_attr_validate(nested, MNL_TYPE_U64) >= 0) {
            packets = be64toh(mnl_attr_get_u64(nested));
          }
        });
      }
    });
  });
  return packets;
}

void each_nft_comparison(const std::string& table, const std::string& chain,
                         const std::function<void(std::span<const std::uint8_t>)>& use) {
  const auto comparison = [&](const nlattr* data) {
    each_nested(data, [&](const nlattr* attribute) {
      if (mnl_attr_get_type(attribute) == NFTA_CMP_DATA) {
        each_nested(attribute, [&](const nlattr* value) {
          use({static_cast<const std::uint8_t*>(mnl_attr_get_payload(value)), mnl_attr_get_payload_len(value)});
        });
      }
    });
  };
  const auto expression = [&](const nlattr* element) {
    std::string_view name;
    each_nested(element, [&](const nlattr* attribute) {
      if (mnl_attr_get_type(attribute) == NFTA_EXPR_NAME && is_string(attribute)) {
        name = mnl_attr_get_str(attribute);
      } else if (mnl_attr_get_type(attribute) == NFTA_EXPR_DATA && name == "cmp") {
        comparison(attribute);
      }
    });
  };
  const auto narrow = [&](nlmsghdr* message) {
    put_text(message, NFTA_RULE_TABLE, table);
    put_text(message, NFTA_RULE_CHAIN, chain);
  };
  for (const auto& answer : dump(NFT_MSG_GETRULE, NFPROTO_NETDEV, narrow)) {
    answer.each<nfgenmsg>([&](const nlattr* attribute) {
      if (mnl_attr_get_type(attribute) == NFTA_RULE_EXPRESSIONS) {
        each_nested(attribute, expression);
      }
    });
  }
}

}  // namespace martlet
