#include "net/port_shaper.h"

#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr const char* kKind = "tbf";
constexpr std::uint32_t kEthernet = 14 + 4;  // what a frame has over its packet
constexpr std::uint64_t kLargest = 65536 + kEthernet;
constexpr double kTick = 64e-9;  // seconds: PSCHED_SHIFT of <net/pkt_sched.h>
constexpr std::uint64_t kMost = std::numeric_limits<std::uint32_t>::max();

std::uint64_t ticks_of(std::uint64_t bytes, std::uint64_t rate) noexcept {
  return static_cast<std::uint64_t>(static_cast<double>(bytes) / static_cast<double>(rate) / kTick);
}

/// The kernel keeps a burst as the time it takes: of the byte counts that take as long, the roundest.
std::uint64_t bytes_of(std::uint64_t ticks, std::uint64_t rate) noexcept {
  const auto bytes = (static_cast<double>(ticks) + 0.5) * kTick * static_cast<double>(rate);
  for (const double unit : {1048576.0, 1024.0, 1000.0}) {
    const auto round = static_cast<std::uint64_t>(std::round(bytes / unit) * unit);
    const auto apart = ticks_of(round, rate) > ticks ? ticks_of(round, rate) - ticks : ticks - ticks_of(round, rate);
    if (round != 0 && apart <= 1) {
      return round;
    }
  }
  return static_cast<std::uint64_t>(bytes);
}

}  // namespace

int shape(Rtnetlink& netlink, int interface, std::uint32_t mtu, const Shape& shape) {
  // A frame longer than the burst would never go.
  const auto burst =
      std::clamp<std::uint64_t>(shape.burst != 0 ? shape.burst : shape.rate / 10, mtu + kEthernet, kMost);
  NetlinkMessage message{RTM_NEWQDISC, NLM_F_CREATE | NLM_F_REPLACE};
  auto& queue = message.extra<tcmsg>();
  queue.tcm_family = AF_UNSPEC;
  queue.tcm_ifindex = interface;
  queue.tcm_parent = TC_H_ROOT;
  auto* const header = message.header();
  mnl_attr_put_strz(header, TCA_KIND, kKind);
  // A size table without entries: packets that are yet to be cut count as long as they are, as in the counters.
  const tc_sizespec plain{};
  auto* const sizes = mnl_attr_nest_start(header, TCA_STAB);
  mnl_attr_put(header, TCA_STAB_BASE, sizeof plain, &plain);
  mnl_attr_nest_end(header, sizes);

  tc_tbf_qopt options{};
  options.rate.rate = static_cast<std::uint32_t>(std::min(shape.rate, kMost));
  options.rate.linklayer = TC_LINKLAYER_ETHERNET;
  // Room for a tenth of a second, and for two of the largest packets.
  options.limit = static_cast<std::uint32_t>(std::min(burst + std::max(shape.rate / 10, 2 * kLargest), kMost));
  auto* const nest = mnl_attr_nest_start(header, TCA_OPTIONS);
  mnl_attr_put(header, TCA_TBF_PARMS, sizeof options, &options);
  mnl_attr_put_u32(header, TCA_TBF_BURST, static_cast<std::uint32_t>(burst));
  if (shape.rate > kMost) {
    mnl_attr_put_u64(header, TCA_TBF_RATE64, shape.rate);
  }
  mnl_attr_nest_end(header, nest);
  return netlink.socket().request(message);
}

std::optional<Shape> read_shape(Rtnetlink& netlink, int interface) {
  std::optional<Shape> found;
  NetlinkMessage message{RTM_GETQDISC, NLM_F_DUMP};
  message.extra<tcmsg>().tcm_ifindex = interface;
  const int error = netlink.socket().request(message, [&](const nlmsghdr* answer) {
    const auto& queue = *static_cast<const tcmsg*>(mnl_nlmsg_get_payload(answer));
    if (queue.tcm_ifindex != interface || queue.tcm_parent != TC_H_ROOT) {
      return;
    }
    std::string_view kind;
    tc_tbf_qopt options{};
    std::uint64_t rate = 0;
    each_attribute(answer, sizeof queue, [&](const nlattr* attribute) {
      if (mnl_attr_get_type(attribute) == TCA_KIND && is_string(attribute)) {
        kind = mnl_attr_get_str(attribute);
      } else if (mnl_attr_get_type(attribute) == TCA_OPTIONS && kind == kKind) {
        each_nested(attribute, [&](const nlattr* nested) {
          if (mnl_attr_get_type(nested) == TCA_TBF_PARMS && mnl_attr_get_payload_len(nested) >= sizeof options) {
            options = *static_cast<const tc_tbf_qopt*>(mnl_attr_get_payload(nested));
          } else if (mnl_attr_get_type(nested) == TCA_TBF_RATE64) {
            rate = mnl_attr_get_u64(nested);
          }
        });
      }
    });
    if (rate = std::max<std::uint64_t>(rate, options.rate.rate); rate != 0) {
      found = Shape{.rate = rate, .burst = bytes_of(options.buffer, rate)};
    }
  });
  if (error != 0) {
    fail_errno(error, "rtnetlink: cannot look an interface's queues up");
  }
  return found;
}

}  // namespace martlet
