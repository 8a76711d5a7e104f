#include "net/open_backend.h"

#include <fmt/format.h>

#include <string>
#include <utility>

#include "net/passt.h"
#include "net/pcap_backend.h"
#include "net/port.h"
#include "net/rtnetlink.h"
#include "net/stream_backend.h"
#include "net/tap.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

std::unique_ptr<NetBackend> open_way(const NetOptions& options, const MacAddress& guest) {
  if (!options.bridge.empty()) {
    return Tap::on_bridge({.bridge = options.bridge, .pairs = options.queues, .guest = guest, .policy = options.port});
  }
  if (!options.tap.empty()) {
    return Tap::open({.name = options.tap, .pairs = options.queues});
  }
  if (!options.macvtap.empty()) {
    return Tap::on_interface(
        {.below = options.macvtap, .mode = options.macvtap_mode, .guest = guest, .pairs = options.queues});
  }
  if (options.user) {
    const PasstOptions passt{.mtu = options.port.mtu.value_or(PasstOptions::kMostMtu), .forwards = options.forwards};
    return std::make_unique<StreamBackend>(start_passt(passt), passt.mtu);
  }
  return Tap::inherit(options.fd.value_or(-1));
}

/// On the command line, or else as the port was made.
std::string capture_of(const NetOptions& options) {
  if (!options.port.pcap.empty() || options.tap.empty()) {
    return options.port.pcap;
  }
  const auto tap = Rtnetlink{}.find(options.tap);
  const auto mark = tap ? read_port_mark(*tap) : std::nullopt;
  return mark ? mark->pcap : "";
}

}  // namespace

std::string describe_way(const NetOptions& options) {
  if (!options.bridge.empty()) {
    return "bridge=" + options.bridge;
  }
  if (!options.tap.empty()) {
    return "tap=" + options.tap;
  }
  if (!options.macvtap.empty()) {
    return "macvtap=" + options.macvtap;
  }
  if (options.user) {
    return "user";
  }
  if (!options.vhost_user.empty()) {
    return "vhost-user=" + options.vhost_user;
  }
  return fmt::format("fd={}", options.fd.value_or(-1));
}

std::unique_ptr<NetBackend> open_backend(const NetOptions& options, const MacAddress& guest, const Say& say) {
  auto backend = open_way(options, guest);
  if (options.port.mtu && *options.port.mtu > backend->mtu()) {
    throw HostError{fmt::format("-n mtu={}: the network carries {}; raise it there first: ip link set NAME mtu {}",
                                *options.port.mtu, backend->mtu(), *options.port.mtu)};
  }
  const auto pcap = capture_of(options);
  if (pcap.empty()) {
    return backend;
  }
  return std::make_unique<PcapBackend>(
      std::move(backend), PcapWriter::Options{.path = pcap, .interface = {.name = describe_way(options), .mac = guest}},
      say);
}

}  // namespace martlet
