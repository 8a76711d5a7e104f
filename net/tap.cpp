#include "net/tap.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <string_view>
#include <system_error>
#include <utility>

#include "net/port.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr const char* kControl = "/dev/net/tun";
constexpr short kFlags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
// Linux 6.2's, which Debian 12's headers lack.
constexpr unsigned kTunUso4 = 0x20;
constexpr unsigned kTunUso6 = 0x40;

std::string text_of(int error) { return std::generic_category().message(error); }

/// IFF_* of <net/if.h> and of if_tun.h share the short in ifr_flags.
ifreq request_for(const std::string& name, int flags) {
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), std::min(name.size(), sizeof request.ifr_name - 1));
  request.ifr_flags = static_cast<short>(flags);
  return request;
}

Fd open_control() {
  Fd fd{::open(kControl, O_RDWR | O_NONBLOCK | O_CLOEXEC)};
  if (fd) {
    return fd;
  }
  switch (errno) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      throw HostError{fmt::format("{}: this host has no TAPs; load the module: modprobe tun", kControl)};
    case EACCES:
    case EPERM:
      throw HostError{fmt::format("{}: not permitted; as root: chmod 666 {}", kControl, kControl)};
    default:
      fail_errno(errno, fmt::format("cannot open {}", kControl));
  }
}

constexpr std::string_view kMakeOne =
    "needs CAP_NET_ADMIN (run as root, or setcap cap_net_admin+ep martlet), or a port made for you, as root: martlet "
    "net "
    "port tap0 --owner $USER --bridge {}, then -n tap=tap0";

[[noreturn]] void fail_to_make(const std::string& bridge, int error) {
  if (error == EPERM) {
    throw HostError{fmt::format("-n bridge={}: {}", bridge, fmt::format(fmt::runtime(kMakeOne), bridge))};
  }
  fail_errno(error, fmt::format("-n bridge={}: cannot make a TAP", bridge));
}

/// Makes the TAP or attaches to it. 0 or errno; `request` then holds its name.
int set_interface(const Fd& fd, ifreq& request) { return ::ioctl(fd.get(), TUNSETIFF, &request) == 0 ? 0 : errno; }

unsigned tun_bits(std::uint32_t offloads) noexcept {
  constexpr std::uint32_t kUsable = kChecksum | kTso4 | kTso6 | kTsoEcn | kUfo | kUso;
  if ((offloads & kChecksum) == 0) {
    return 0;  // the kernel takes no segmentation without checksums
  }
  offloads &= kUsable;
  if ((offloads & (kTso4 | kTso6)) == 0) {
    offloads &= ~std::uint32_t{kTsoEcn};  // and no ECN alone
  }
  constexpr std::pair<std::uint32_t, unsigned> kBits[] = {{kChecksum, TUN_F_CSUM}, {kTso4, TUN_F_TSO4},
                                                          {kTso6, TUN_F_TSO6},     {kTsoEcn, TUN_F_TSO_ECN},
                                                          {kUfo, TUN_F_UFO},       {kUso, kTunUso4 | kTunUso6}};
  unsigned bits = 0;
  for (const auto& [ours, theirs] : kBits) {
    bits |= (offloads & ours) != 0 ? theirs : 0;
  }
  return bits;
}

}  // namespace

std::unique_ptr<Tap> Tap::open(const Wanted& wanted) {
  const auto fail = [&](std::string_view why) { throw HostError{fmt::format("-n tap={}: {}", wanted.name, why)}; };
  refuse_bad_name(wanted.name, "-n tap=");
  Rtnetlink netlink;
  const auto link = netlink.find(wanted.name);
  if (!link) {
    fail(fmt::format(
        "there is no such interface; make one: ip tuntap add dev {} mode tap user $USER{} && ip link set {} up",
        wanted.name, wanted.pairs > 1 ? " multi_queue" : "", wanted.name));
  }
  if (link->kind != "tun") {
    fail(fmt::format("is {}, not a TAP", kind_of(*link)));
  }
  std::unique_ptr<Tap> tap{new Tap};
  tap->name_ = wanted.name;
  int flags = kFlags | (wanted.pairs > 1 ? IFF_MULTI_QUEUE : 0);
  while (tap->queues_.size() < wanted.pairs) {
    Fd fd = open_control();
    ifreq request = request_for(wanted.name, flags);
    int error = set_interface(fd, request);
    if (error == EINVAL && wanted.pairs == 1 && (flags & IFF_MULTI_QUEUE) == 0) {
      flags |= IFF_MULTI_QUEUE;  // one that could have several queues must be opened so
      request = request_for(wanted.name, flags);
      error = set_interface(fd, request);
    }
    switch (error) {
      case 0:
        break;
      case EBUSY:
        fail("is busy: another program holds it");
        break;
      case EPERM:
        fail(
            "belongs to another user; needs CAP_NET_ADMIN, or a TAP made for you: ip tuntap add dev NAME mode tap user "
            "$USER");
        break;
      case EINVAL:
        fail(wanted.pairs > 1 ? "is not a TAP for several queues: ip tuntap add dev NAME mode tap multi_queue"
                              : "is a TUN (mode tun), not a TAP (mode tap)");
        break;
      default:
        fail_errno(error, fmt::format("-n tap={}", wanted.name));
    }
    tap->queues_.push_back(std::move(fd));
  }
  if ((link->flags & IFF_UP) == 0) {
    if (const int error = netlink.change(link->index, {.state = LinkChange::State::Up}); error != 0) {
      fail(fmt::format("is down, and cannot be set up ({}): ip link set {} up", text_of(error), wanted.name));
    }
  }
  tap->mtu_ = static_cast<std::uint16_t>(std::min<std::uint32_t>(link->mtu, 65535));
  tap->link_.emplace(link->index);
  tap->configure();
  return tap;
}

std::unique_ptr<Tap> Tap::inherit(int fd) {
  const auto fail = [&](std::string_view why) { throw HostError{fmt::format("-n fd={}: {}", fd, why)}; };
  ifreq request{};
  if (::fcntl(fd, F_GETFD) < 0) {
    fail("is not an open descriptor");
  }
  if (::ioctl(fd, TUNGETIFF, &request) != 0) {
    fail("is not a TAP that is ready for use (TUNSETIFF)");
  }
  const int flags = static_cast<unsigned short>(request.ifr_flags);
  if ((flags & IFF_TAP) == 0) {
    fail(fmt::format("{} is a TUN, not a TAP", request.ifr_name));
  }
  if ((flags & kFlags) != kFlags) {
    fail(fmt::format("{} was not made with IFF_NO_PI and IFF_VNET_HDR", request.ifr_name));
  }
  std::unique_ptr<Tap> tap{new Tap};
  tap->name_ = request.ifr_name;
  tap->queues_.push_back(duplicate(fd));
  const int status = ::fcntl(fd, F_GETFL);
  check(::fcntl(fd, F_SETFL, status | O_NONBLOCK), "fcntl");
  // It may lead into another network namespace, where its name says nothing here: then the MTU is a guess.
  if (const auto link = Rtnetlink{}.find(tap->name_); link && link->kind == "tun") {
    tap->mtu_ = static_cast<std::uint16_t>(std::min<std::uint32_t>(link->mtu, 65535));
    tap->link_.emplace(link->index);
  }
  tap->configure();
  return tap;
}

std::unique_ptr<Tap> Tap::on_bridge(const Port& port) {
  refuse_bad_name(port.bridge, "-n bridge=");
  Rtnetlink netlink;
  const PortRequest wanted{
      .what = "-n bridge=" + port.bridge, .bridge = port.bridge, .guest = port.guest, .policy = port.policy};
  const auto bridge = find_bridge(netlink, wanted);
  std::unique_ptr<Tap> tap{new Tap};
  tap->name_ = "mlt%d";  // the kernel finds a number that is free
  while (tap->queues_.size() < port.pairs) {
    Fd fd = open_control();
    ifreq request = request_for(tap->name_, kFlags | (port.pairs > 1 ? IFF_MULTI_QUEUE : 0));
    if (const int error = set_interface(fd, request); error != 0) {
      fail_to_make(port.bridge, error);
    }
    tap->name_ = request.ifr_name;
    tap->queues_.push_back(std::move(fd));
  }
  tap->configure();
  const auto link = netlink.find(tap->name_);
  if (!link) {
    throw HostError{fmt::format("-n bridge={}: the TAP {} has gone again", port.bridge, tap->name_)};
  }
  tap->guard_ = plug_in(netlink, *link, bridge, wanted, {});
  tap->mtu_ = port.policy.mtu.value_or(static_cast<std::uint16_t>(std::min<std::uint32_t>(bridge.mtu, 65535)));
  tap->link_.emplace(link->index);
  return tap;
}

std::unique_ptr<Tap> Tap::on_interface(const MacvtapOptions& options) {
  auto made = make_macvtap(options);
  std::unique_ptr<Tap> tap{new Tap};
  tap->name_ = "macvtap on " + options.below;
  tap->queues_ = std::move(made.queues);
  tap->home_ = std::move(made.home);
  tap->mtu_ = static_cast<std::uint16_t>(std::min<std::uint32_t>(made.below.mtu, 65535));
  tap->link_.emplace(made.below.index);  // its carrier is the guest's
  tap->configure();
  return tap;
}

/// The frames' format, on every queue; what the kernel can offload; one pair in use.
void Tap::configure() {
  const int header = kHeaderSize;
  const int yes = 1;
  for (const auto& queue : queues_) {
    check(::ioctl(queue.get(), TUNSETVNETHDRSZ, &header), name_ + ": TUNSETVNETHDRSZ");
    check(::ioctl(queue.get(), TUNSETVNETLE, &yes), name_ + ": TUNSETVNETLE");
  }
  constexpr std::uint32_t kBase = kChecksum | kTso4 | kTso6 | kTsoEcn;
  for (const std::uint32_t more : {kUfo | kUso, std::uint32_t{kUfo}, std::uint32_t{kUso}, 0U}) {
    if (set_offloads(kBase | more)) {
      offloads_ = kBase | more;
      break;
    }
  }
  if (!set_offloads(0)) {
    throw HostError{name_ + ": the kernel refuses TUNSETOFFLOAD"};
  }
  // The default. Somebody else's may have been given less, and then says EAGAIN.
  never_full_ = std::ranges::all_of(queues_, [](const Fd& queue) {
    int room = 0;
    return ::ioctl(queue.get(), TUNGETSNDBUF, &room) == 0 && room == std::numeric_limits<int>::max();
  });
  enabled_ = pairs();
  if (!enable_pairs(1)) {
    throw HostError{name_ + ": the kernel refuses TUNSETQUEUE"};
  }
}

bool Tap::set_offloads(std::uint32_t offloads) noexcept {
  return ::ioctl(queues_.front().get(), TUNSETOFFLOAD, static_cast<unsigned long>(tun_bits(offloads))) == 0;
}

bool Tap::attach(std::uint16_t pair, short how) const noexcept {
  ifreq request{};
  request.ifr_flags = how;
  return ::ioctl(queues_[pair].get(), TUNSETQUEUE, &request) == 0;
}

bool Tap::enable_pairs(std::uint16_t count) noexcept {
  const std::uint16_t before = enabled_;
  while (enabled_ < count) {
    if (!attach(enabled_, IFF_ATTACH_QUEUE)) {
      while (enabled_ > before && attach(static_cast<std::uint16_t>(enabled_ - 1), IFF_DETACH_QUEUE)) {
        --enabled_;
      }
      return false;
    }
    ++enabled_;
  }
  while (enabled_ > count) {
    if (!attach(static_cast<std::uint16_t>(enabled_ - 1), IFF_DETACH_QUEUE)) {
      return false;
    }
    --enabled_;
  }
  return true;
}

namespace {

std::ptrdiff_t result_of(ssize_t result) noexcept {
  return result == -EBADFD ? -ENODEV : result;  // EBADFD: somebody deleted the interface
}

void translate(std::span<NetBackend::Transfer> transfers) noexcept {
  for (auto& transfer : transfers) {
    transfer.result = result_of(transfer.result);
  }
}

}  // namespace

std::ptrdiff_t Tap::receive(std::uint16_t pair, std::span<const iovec> into) noexcept {
  const auto got = ::readv(queues_[pair].get(), into.data(), static_cast<int>(into.size()));
  return result_of(got < 0 ? -errno : got);
}

std::ptrdiff_t Tap::send(std::uint16_t pair, std::span<const iovec> frame) noexcept {
  const auto sent = ::writev(queues_[pair].get(), frame.data(), static_cast<int>(frame.size()));
  return result_of(sent < 0 ? -errno : sent);
}

void Tap::receive_all(std::uint16_t pair, std::span<Transfer> transfers) noexcept {
  if (!batch_ || transfers.size() == 1) {
    NetBackend::receive_all(pair, transfers);
    return;
  }
  batch_->read(queues_[pair].get(), transfers);
  translate(transfers);
}

/// In one call a frame that finds no room would be overtaken: TAPs where that happens get theirs one by one.
void Tap::send_all(std::uint16_t pair, std::span<Transfer> transfers) noexcept {
  if (!batch_ || !never_full_ || transfers.size() == 1) {
    NetBackend::send_all(pair, transfers);
    return;
  }
  batch_->write(queues_[pair].get(), transfers);
  translate(transfers);
  for (auto& transfer : transfers) {
    if (transfer.result == -EAGAIN) {
      transfer.result = -ENOBUFS;  // somebody changed it meanwhile: lost, for others have gone
    }
  }
}

}  // namespace martlet
