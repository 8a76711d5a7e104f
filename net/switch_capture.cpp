#include "net/switch_capture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <utility>

#include "net/backend.h"
#include "net/pcap_writer.h"
#include "net/port_bridge.h"
#include "net/rtnetlink.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr int kWaiting = 16 << 20;  // bytes of frames, for each port
constexpr int kFramesInATurn = 1024;
constexpr std::size_t kAddresses = 12;
constexpr std::size_t kTag = 4;  // IEEE 802.1Q
constexpr std::uint32_t kVlanMask = 0x0fff;

/// What the kernel tells of a frame besides its bytes.
struct Told {
  pcapng::Time time = 0;
  bool tagged = false;
  std::uint16_t tag_type = ETH_P_8021Q;
  std::uint16_t tag = 0;
};

Told read_told(const msghdr& message) {
  Told told;
  for (const auto* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(const_cast<msghdr*>(&message), const_cast<cmsghdr*>(part))) {
    if (part->cmsg_level == SOL_SOCKET && part->cmsg_type == SCM_TIMESTAMPNS) {
      timespec time{};
      std::memcpy(&time, CMSG_DATA(part), sizeof time);
      told.time = static_cast<pcapng::Time>(time.tv_sec) * 1'000'000'000 + static_cast<pcapng::Time>(time.tv_nsec);
    } else if (part->cmsg_level == SOL_PACKET && part->cmsg_type == PACKET_AUXDATA) {
      tpacket_auxdata about{};
      std::memcpy(&about, CMSG_DATA(part), sizeof about);
      told.tagged = (about.tp_status & TP_STATUS_VLAN_VALID) != 0;
      told.tag = about.tp_vlan_tci;
      told.tag_type = (about.tp_status & TP_STATUS_VLAN_TPID_VALID) != 0 ? about.tp_vlan_tpid : told.tag_type;
    }
  }
  return told;
}

/// Only what enters the switch here, and is of the VLAN that is asked for: what else comes by takes no room, and is not
/// counted when there is none.
std::vector<sock_filter> filter_of(bool host, std::uint16_t native, std::optional<std::uint16_t> vlan) {
  constexpr std::uint32_t kWhole = 0x7fffffff;
  const auto load = [](int what) {
    return sock_filter(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<std::uint32_t>(SKF_AD_OFF + what)));
  };
  const auto take = [](std::uint32_t bytes) { return sock_filter(BPF_STMT(BPF_RET | BPF_K, bytes)); };
  std::vector<sock_filter> all;
  if (host) {
    all.insert(all.end(), {load(SKF_AD_PKTTYPE), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 1, 0), take(0)});
  }
  if (vlan) {
    all.insert(all.end(), {load(SKF_AD_VLAN_TAG_PRESENT), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 1),
                           take(*vlan == native ? kWhole : 0), load(SKF_AD_VLAN_TAG),
                           BPF_STMT(BPF_ALU | BPF_AND | BPF_K, kVlanMask),
                           BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, *vlan, 1, 0), take(0)});
  }
  all.push_back(take(kWhole));
  return all;
}

/// From now on only what passes it arrives. 0, or -1 with errno.
int attach(const Fd& socket, std::vector<sock_filter> filter) {
  const sock_fprog program{.len = static_cast<unsigned short>(filter.size()), .filter = filter.data()};
  return ::setsockopt(socket.get(), SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

Fd packet_socket() {
  Fd socket{::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};  // nothing comes before bind()
  if (!socket && errno == EPERM) {
    throw HostError{"a capture of a switch needs CAP_NET_RAW; run it as root"};
  }
  check(socket.get(), "packet socket");
  return socket;
}

}  // namespace

SwitchCapture::SwitchCapture(EventLoop& loop, Options options)
    : loop_{loop}, options_{std::move(options)}, frame_(kTag + NetBackend::kMaxFrame) {
  Rtnetlink netlink;
  const auto bridge = netlink.find(options_.name);
  if (!bridge || bridge->kind != "bridge") {
    throw HostError{fmt::format("{}: there is no such switch; martlet net list shows what there is", options_.name)};
  }
  static_cast<void>(packet_socket());  // who may not is told so before there is a file
  if (options_.file == "-") {          // as it was opened: for appending, perhaps
    file_ = Fd{check(::fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0), "stdout")};
  } else {
    file_ = open_capture(options_.file, "");
    check(::fcntl(file_.get(), F_SETFL, 0), options_.file);  // wait for a slow pipe
  }
  write(pcapng::section("Martlet"));
  const bool vlans = read_bridge_vlans(netlink, bridge->index).filtering;
  const auto native = [&](int index) -> std::uint16_t {
    return vlans ? read_bridge_port(netlink, index).vlans.native : std::uint16_t{0};
  };
  add_port(bridge->name, bridge->index, true, native(bridge->index));
  for (const auto& link : netlink.links()) {
    if (link.master == bridge->index) {
      add_port(link.name, link.index, false, native(link.index));
    }
  }
}

SwitchCapture::~SwitchCapture() {
  for (const auto& port : ports_) {
    loop_.unwatch(port->socket.get());
  }
}

void SwitchCapture::add_port(const std::string& name, int index, bool host, std::uint16_t native) {
  Fd socket = packet_socket();
  const int yes = 1;
  const auto set = [&](int level, int option, int value) {
    return ::setsockopt(socket.get(), level, option, &value, sizeof value);
  };
  check(set(SOL_PACKET, PACKET_AUXDATA, yes), "PACKET_AUXDATA");
  check(set(SOL_SOCKET, SO_TIMESTAMPNS, yes), "SO_TIMESTAMPNS");
  if (!host) {
    check(set(SOL_PACKET, PACKET_IGNORE_OUTGOING, yes), "PACKET_IGNORE_OUTGOING");
  }
  if (set(SOL_SOCKET, SO_RCVBUFFORCE, kWaiting) != 0) {
    static_cast<void>(set(SOL_SOCKET, SO_RCVBUF, kWaiting));  // as much as an ordinary user gets
  }
  check(attach(socket, filter_of(host, native, options_.vlan)), "SO_ATTACH_FILTER");
  sockaddr_ll where{};
  where.sll_family = AF_PACKET;
  where.sll_protocol = htons(ETH_P_ALL);
  where.sll_ifindex = index;
  check(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&where), sizeof where), "cannot listen at " + name);
  write(pcapng::interface({.name = name}));
  auto& port = *ports_.emplace_back(std::make_unique<Port>(
      Port{.socket = std::move(socket), .interface = static_cast<std::uint32_t>(ports_.size()), .host = host}));
  loop_.watch(port.socket.get(), EPOLLIN, [this, &port](std::uint32_t) { take(port); });
}

bool SwitchCapture::take(Port& port) {
  for (int frames = 0; frames < kFramesInATurn; ++frames) {
    std::array<iovec, 1> into{{{.iov_base = frame_.data() + kTag, .iov_len = frame_.size() - kTag}}};
    alignas(cmsghdr) std::array<char, 256> control{};
    msghdr message{};
    message.msg_iov = into.data();
    message.msg_iovlen = into.size();
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const auto got = ::recvmsg(port.socket.get(), &message, 0);
    if (got < 0) {
      return false;  // nothing there, or the port has just gone
    }
    const auto told = read_told(message);
    if (static_cast<std::size_t>(got) < kAddresses) {
      continue;
    }
    std::span<const std::byte> frame{frame_.data() + kTag, static_cast<std::size_t>(got)};
    if (told.tagged) {  // the kernel put it aside
      std::memmove(frame_.data(), frame_.data() + kTag, kAddresses);
      const std::array<std::uint16_t, 2> tag{htons(told.tag_type), htons(told.tag)};
      std::memcpy(frame_.data() + kAddresses, tag.data(), kTag);
      frame = {frame_.data(), frame.size() + kTag};
    }
    const pcapng::Envelope envelope{
        {.time = told.time,
         .size = static_cast<std::uint32_t>(frame.size()),
         .interface = port.interface,
         .direction = port.host ? pcapng::Direction::Outbound : pcapng::Direction::Inbound}};
    std::vector<std::byte> block{envelope.head().begin(), envelope.head().end()};
    block.insert(block.end(), frame.begin(), frame.end());
    block.insert(block.end(), envelope.tail().begin(), envelope.tail().end());
    write(block);
    ++port.captured;
  }
  return true;
}

pcapng::Counts SwitchCapture::finish() {
  pcapng::Counts all;
  for (const auto& port : ports_) {
    check(attach(port->socket, {BPF_STMT(BPF_RET | BPF_K, 0)}), "SO_ATTACH_FILTER");  // nothing more comes
    while (take(*port)) {
    }
    tpacket_stats kernel{};
    socklen_t size = sizeof kernel;
    static_cast<void>(::getsockopt(port->socket.get(), SOL_PACKET, PACKET_STATISTICS, &kernel, &size));
    const pcapng::Counts counts{.seen = port->captured + kernel.tp_drops, .dropped = kernel.tp_drops};
    write(pcapng::statistics(port->interface, counts));
    all.seen += counts.seen;
    all.dropped += counts.dropped;
  }
  return all;
}

/// Waits for a slow pipe: the frames wait in the kernel meanwhile.
void SwitchCapture::write(const std::vector<std::byte>& bytes) {
  for (std::span<const std::byte> left{bytes}; !left.empty();) {
    const auto written = ::write(file_.get(), left.data(), left.size());
    if (written < 0 && errno != EINTR) {
      fail_errno(errno, "cannot write to " + options_.file);
    }
    left = left.subspan(static_cast<std::size_t>(std::max<ssize_t>(written, 0)));
  }
}

}  // namespace martlet
