#include "net/macvtap.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <fstream>
#include <future>
#include <thread>
#include <utility>

#include "net/port.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr const char* kName = "guest";

[[noreturn]] void fail(const std::string& below, std::string_view why) {
  throw HostError{fmt::format("-n macvtap={}: {}", below, why)};
}

void need(int result, const std::string& below, std::string_view to) {
  if (result == 0) {
    return;
  }
  if (errno == EPERM || errno == EACCES) {
    fail(below, fmt::format("cannot {}: needs root (CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_MKNOD)", to));
  }
  fail_errno(errno, fmt::format("-n macvtap={}: cannot {}", below, to));
}

/// No other namespace's macvtap has it: /dev/tapINDEX is named by it, and udev's may be somebody else's.
int free_index() {
  static std::atomic<int> count{0};
  return (1 << 30) | ((count++ & 0xff) << 22) | (::getpid() & 0x3fffff);
}

/// Makes the interface in the namespace `home`, on top of one of `outside`'s. 0 or errno.
int make_link(Rtnetlink& outside, const MacvtapOptions& options, const Link& below, int index, int home) {
  NetlinkMessage message{RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL};
  message.extra<ifinfomsg>().ifi_index = index;
  auto* const header = message.header();
  mnl_attr_put_strz(header, IFLA_IFNAME, kName);
  mnl_attr_put_u32(header, IFLA_LINK, static_cast<std::uint32_t>(below.index));
  mnl_attr_put_u32(header, IFLA_NET_NS_FD, static_cast<std::uint32_t>(home));
  mnl_attr_put(header, IFLA_ADDRESS, options.guest.size(), options.guest.data());
  auto* const info = mnl_attr_nest_start(header, IFLA_LINKINFO);
  mnl_attr_put_strz(header, IFLA_INFO_KIND, "macvtap");
  auto* const data = mnl_attr_nest_start(header, IFLA_INFO_DATA);
  mnl_attr_put_u32(header, IFLA_MACVLAN_MODE, static_cast<std::uint32_t>(options.mode));
  mnl_attr_nest_end(header, data);
  mnl_attr_nest_end(header, info);
  return outside.socket().request(message);
}

/// Calls `action` again for a second while it fails as it does when one like it is there: the kernel takes some
/// milliseconds to end a namespace, and so the macvtap of a process that is gone. 0 or errno.
template <class Action>
int patiently(Action action) {
  int error = action();
  for (int i = 0; i < 20 && (error == EADDRINUSE || error == EBUSY || error == EINVAL); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds{50});
    error = action();
  }
  return error;
}

void need_link(const MacvtapOptions& options, int error) {
  switch (error) {
    case EOPNOTSUPP:
      fail(options.below, "this host has no macvtaps, or none on such an interface; load the module: modprobe macvtap");
    case EBUSY:
      fail(options.below, "is busy: somebody else's already, or mode=passthru wants it for itself");
    case EINVAL:
      fail(options.below,
           "no macvtap can stand on it: it is taken by one with mode=passthru, or no Ethernet interface");
    default:
      errno = error;
      need(error == 0 ? 0 : -1, options.below, "make a macvtap");
  }
}

/// The character device of the namespace we are in, by a sysfs of that namespace.
dev_t device_of(int index, const std::string& below) {
  need(::mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr), below, "mount its sysfs");
  for (const auto* between : {"", "macvtap/"}) {
    std::ifstream file{fmt::format("/sys/class/net/{}/{}tap{}/dev", kName, between, index)};
    unsigned major = 0;
    unsigned minor = 0;
    char colon = 0;
    if (file >> major >> colon >> minor) {
      return makedev(major, minor);
    }
  }
  fail(below, "its macvtap has no device in /sys/class/net");
}

Fd open_queue(const char* node, const MacvtapOptions& options) {
  Fd fd{::open(node, O_RDWR | O_NONBLOCK | O_CLOEXEC)};
  need(fd ? 0 : -1, options.below, "open its macvtap's device");
  ifreq request{};
  const int flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (options.pairs > 1 ? IFF_MULTI_QUEUE : 0);
  request.ifr_flags = static_cast<short>(flags);
  need(::ioctl(fd.get(), TUNSETIFF, &request), options.below, "set its macvtap's flags");
  return fd;
}

/// In a thread of its own, which changes namespaces for good.
Macvtap make_in_thread(const MacvtapOptions& options, Link below, Rtnetlink& outside) {
  need(::unshare(CLONE_NEWNET | CLONE_NEWNS), options.below, "make a network namespace");
  need(::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr), options.below, "keep mounts to itself");
  Macvtap made{.below = std::move(below), .queues = {}, .home = open_file("/proc/thread-self/ns/net", O_RDONLY)};
  const int index = free_index();
  need_link(options, patiently([&] { return make_link(outside, options, made.below, index, made.home.get()); }));
  Rtnetlink inside;
  [[maybe_unused]] const int no_ipv6 = inside.forbid_ipv6_address(index);  // it is the guest's address, not ours
  const int error = patiently([&] { return inside.change(index, {.state = LinkChange::State::Up}); });
  if (error == EADDRINUSE) {
    fail(options.below,
         fmt::format("another macvtap there has the address {} already; give another mac=", to_string(options.guest)));
  }
  if (error != 0) {
    fail_errno(error, fmt::format("-n macvtap={}: cannot set its macvtap up", options.below));
  }
  const auto device = device_of(index, options.below);
  // Nobody sees these mounts, and the node is gone with the thread.
  constexpr const char* kNode = "/sys/tap";
  need(::mount("tmpfs", "/sys", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=700"), options.below, "mount a tmpfs");
  need(::mknod(kNode, S_IFCHR | 0600, device), options.below, "make its macvtap's device node");
  while (made.queues.size() < options.pairs) {
    made.queues.push_back(open_queue(kNode, options));
  }
  return made;
}

}  // namespace

Link find_below(const std::string& name) {
  refuse_bad_name(name, "-n macvtap=");
  auto below = Rtnetlink{}.find(name);
  if (!below) {
    fail(name, "there is no such interface; ip link shows those there are");
  }
  return *std::move(below);
}

Macvtap make_macvtap(const MacvtapOptions& options) {
  auto below = find_below(options.below);
  if ((below.flags & IFF_LOOPBACK) != 0 || below.kind == "tun") {
    fail(options.below, fmt::format("is {}; a macvtap stands on an Ethernet interface that leads somewhere",
                                    (below.flags & IFF_LOOPBACK) != 0 ? "the loopback interface" : kind_of(below)));
  }
  if (below.master != 0) {
    fail(options.below, "is a port of a bridge or bond: give bridge=NAME, or a macvtap on that");
  }
  Rtnetlink outside;
  return std::async(std::launch::async, [&] { return make_in_thread(options, std::move(below), outside); }).get();
}

}  // namespace martlet
