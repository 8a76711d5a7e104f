#include "net/kept_port.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "net/port.h"
#include "net/port_shaper.h"
#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet {
namespace {

/// The kernel can only drop what comes too fast from the guest, or queue it on its way through a second interface,
/// which is named after the port's index.
std::string queue_of(int port) { return fmt::format("mltq{}", port); }

int make_ifb(Rtnetlink& netlink, const std::string& name) {
  NetlinkMessage message{RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL};
  auto& info = message.extra<ifinfomsg>();
  info.ifi_flags = info.ifi_change = IFF_UP;
  mnl_attr_put_strz(message.header(), IFLA_IFNAME, name.c_str());
  auto* const nest = mnl_attr_nest_start(message.header(), IFLA_LINKINFO);
  mnl_attr_put_strz(message.header(), IFLA_INFO_KIND, "ifb");
  mnl_attr_nest_end(message.header(), nest);
  return netlink.socket().request(message);
}

int make_queue(Rtnetlink& netlink, const Link& tap, const KeptPort& port) {
  const auto name = queue_of(tap.index);
  if (const int error = make_ifb(netlink, name); error != 0) {
    throw HostError{fmt::format("net port {}: rate= needs an ifb interface ({}); load it: modprobe ifb", port.name,
                                std::strerror(error))};
  }
  const auto link = netlink.find(name);
  const int error =
      link ? shape(netlink, link->index, tap.mtu, {.rate = port.policy.rate, .burst = port.policy.burst}) : ENODEV;
  if (error != 0) {
    fail_errno(error, fmt::format("net port {}: cannot limit its rate", port.name));
  }
  return link->index;
}

/// What does not go with the TAP.
void remove_traces(Rtnetlink& netlink, const std::string& name, const std::vector<int>& indexes) {
  PortGuard::remove(name);
  for (const int index : indexes) {
    if (const auto queue = netlink.find(queue_of(index)); queue && queue->kind == "ifb") {
      [[maybe_unused]] const int error = netlink.remove(queue->index);
    }
  }
}

Fd make_tap(const KeptPort& port) {
  const auto refuse = [&] {
    throw HostError{fmt::format("net port {}: making a TAP needs CAP_NET_ADMIN (run as root)", port.name)};
  };
  Fd fd{::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)};
  if (!fd) {
    if (errno == EACCES || errno == EPERM) {
      refuse();
    }
    fail_errno(errno, fmt::format("net port {}: cannot open /dev/net/tun", port.name));
  }
  ifreq request{};
  std::memcpy(request.ifr_name, port.name.data(), std::min(port.name.size(), sizeof request.ifr_name - 1));
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE | IFF_TUN_EXCL);
  if (::ioctl(fd.get(), TUNSETIFF, &request) != 0) {
    if (errno == EPERM) {
      refuse();
    }
    fail_errno(errno, fmt::format("net port {}: cannot make a TAP", port.name));
  }
  check(::ioctl(fd.get(), TUNSETOWNER, static_cast<unsigned long>(port.owner)),
        fmt::format("net port {}: TUNSETOWNER", port.name));
  return fd;
}

}  // namespace

MacAddress make_kept_port(const KeptPort& port) {
  const auto what = "net port " + port.name;
  refuse_bad_name(port.name, "net port ");
  const PortRequest request{.what = fmt::format("{}: --bridge {}", what, port.bridge),
                            .bridge = port.bridge,
                            .guest = port.policy.mac ? *port.policy.mac : random_mac(),
                            .policy = port.policy};
  Rtnetlink netlink;
  const auto bridge = find_bridge(netlink, request);
  if (netlink.find(port.name)) {
    throw HostError{fmt::format("{0}: is already there; martlet net port {1} --delete takes it away", what, port.name)};
  }
  const Fd fd = make_tap(port);  // not persistent yet: it goes with this descriptor
  const auto tap = netlink.find(port.name);
  if (!tap) {
    throw HostError{what + ": the TAP has gone again"};
  }
  try {
    const int through = port.policy.rate != 0 ? make_queue(netlink, *tap, port) : 0;
    const auto guard = plug_in(netlink, *tap, bridge, request, {.life = PortGuard::Life::Kept, .through = through});
    check(::ioctl(fd.get(), TUNSETPERSIST, 1UL), what + ": TUNSETPERSIST");
  } catch (...) {
    remove_traces(netlink, port.name, {tap->index});
    throw;
  }
  return request.guest;
}

void delete_kept_port(const std::string& name) {
  refuse_bad_name(name, "net port ");
  Rtnetlink netlink;
  const auto tap = netlink.find(name);
  if (tap && (tap->kind != "tun" || !read_port_mark(*tap))) {
    throw HostError{fmt::format("net port {}: was not made by martlet net port; ip link delete {}", name, name)};
  }
  auto indexes = PortGuard::indexes(name);
  if (!tap && indexes.empty()) {
    throw HostError{fmt::format("net port {}: there is no such port", name)};
  }
  if (tap) {
    indexes.push_back(tap->index);
    if (const int error = netlink.remove(tap->index); error != 0) {
      fail_errno(error, fmt::format("net port {}: cannot delete it", name));
    }
  }
  remove_traces(netlink, name, indexes);
}

MacAddress guest_address(const NetOptions& options) {
  const auto tap = options.tap.empty() ? std::nullopt : Rtnetlink{}.find(options.tap);
  const auto mark = tap ? read_port_mark(*tap) : std::nullopt;
  const auto owned = mark ? std::optional{mark->guest} : std::nullopt;
  if (owned && options.port.mac && *owned != *options.port.mac) {
    throw HostError{fmt::format("-n mac={}: the port {} is for {}; leave mac= out", to_string(*options.port.mac),
                                options.tap, to_string(*owned))};
  }
  if (!options.port.mac && options.macvtap_mode == MacvtapMode::Passthrough) {
    return find_below(options.macvtap).address;  // which would be changed otherwise
  }
  return options.port.mac ? *options.port.mac : owned ? *owned : random_mac();
}

}  // namespace martlet
