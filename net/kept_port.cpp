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
#include <charconv>
#include <cstring>
#include <string_view>

#include "net/port.h"
#include "net/port_shaper.h"
#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet {
namespace {

/// The kernel can only drop what comes too fast from the guest, or queue it on its way through a second interface,
/// which is named after the port's index.
constexpr std::string_view kQueue = "mltq";
std::string queue_of(int port) { return fmt::format("{}{}", kQueue, port); }

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

/// What does not go with the TAP: guards of ports of this name, and queues, of those that are not there any more. How
/// many there were.
int remove_leftovers(Rtnetlink& netlink, const std::string& name) {
  const auto guards = PortGuard::indexes(name);  // before the interfaces: whose comes meanwhile is there
  const auto links = netlink.links();
  const auto is_there = [&](int index) { return std::ranges::find(links, index, &Link::index) != links.end(); };
  int removed = 0;
  for (const int index : guards) {
    if (!is_there(index)) {
      PortGuard::remove(name, index);
      ++removed;
    }
  }
  for (const auto& link : links) {
    int port = 0;
    if (link.kind == "ifb" && link.name.starts_with(kQueue)) {
      std::from_chars(link.name.data() + kQueue.size(), link.name.data() + link.name.size(), port);
    }
    if (port != 0 && !is_there(port)) {
      removed += netlink.remove(link.index) == 0 ? 1 : 0;
    }
  }
  return removed;
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
  Fd fd = make_tap(port);  // not persistent yet: it goes with this descriptor
  const auto tap = netlink.find(port.name);
  if (!tap) {
    throw HostError{what + ": the TAP has gone again"};
  }
  try {
    remove_leftovers(netlink, port.name);  // of one that was killed: the name is ours alone by now
    const int through = port.policy.rate != 0 ? make_queue(netlink, *tap, port) : 0;
    const auto guard = plug_in(netlink, *tap, bridge, request, {.life = PortGuard::Life::Kept, .through = through});
    check(::ioctl(fd.get(), TUNSETPERSIST, 1UL), what + ": TUNSETPERSIST");
  } catch (...) {
    fd = Fd{};
    remove_leftovers(netlink, port.name);
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
  if (tap && !tap->persistent) {
    throw HostError{fmt::format("net port {}: belongs to a VM that runs, and goes with it", name)};
  }
  if (const int error = tap ? netlink.remove(tap->index) : 0; error != 0) {
    fail_errno(error, fmt::format("net port {}: cannot delete it", name));
  }
  if (remove_leftovers(netlink, name) == 0 && !tap) {
    throw HostError{fmt::format("net port {}: there is no such port", name)};
  }
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
