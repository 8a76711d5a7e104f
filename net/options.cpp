#include "net/options.h"

#include <fmt/format.h>

#include <limits>

#include "net/passt.h"
#include "vmm/base/error.h"
#include "vmm/base/options.h"

namespace martlet {

NetOptions parse_net(std::string_view text) {
  Options options{text, "-n"};
  NetOptions net;
  net.bridge = options.take("bridge").value_or("");
  net.tap = options.take("tap").value_or("");
  net.macvtap = options.take("macvtap").value_or("");
  const auto mode = options.take_choice<MacvtapMode>("mode", {{"bridge", MacvtapMode::Bridge},
                                                              {"vepa", MacvtapMode::Vepa},
                                                              {"private", MacvtapMode::Private},
                                                              {"passthru", MacvtapMode::Passthrough}});
  net.macvtap_mode = mode.value_or(MacvtapMode::Bridge);
  if (const auto fd = options.take_number("fd", {.min = 0, .max = std::numeric_limits<int>::max()})) {
    net.fd = static_cast<int>(*fd);
  }
  if (net.bridge.empty()) {
    for (const char* const key : {"policy", "spoof", "vlan", "vlans", "native", "isolated"}) {
      if (options.take(key)) {
        throw HostError{
            fmt::format("-n {}= wants bridge=NAME: another port is what its maker made it, for example "
                        "martlet net port NAME --bridge br0 {}=…",
                        key, key)};
      }
    }
  }
  net.user = options.take_flag("user").value_or(false);
  for (const auto& forward : options.take_all("hostfwd")) {
    net.forwards.push_back(parse_host_forward(forward));
  }
  net.vhost_user = options.take("vhost-user").value_or("");
  const auto policy = options.take("policy");
  net.port = take_policy(options, policy ? read_policy_file(*policy) : PortPolicy{}, "-n ");
  if (const auto queues = options.take_number("queues", {.min = 1, .max = kMaxNetPairs})) {
    net.queues = static_cast<std::uint16_t>(*queues);
  }
  if (const auto vhost =
          options.take_choice<Vhost>("vhost", {{"auto", Vhost::Auto}, {"on", Vhost::On}, {"off", Vhost::Off}})) {
    net.vhost = *vhost;
  }
  options.finish();

  const int ways = (net.bridge.empty() ? 0 : 1) + (net.tap.empty() ? 0 : 1) + (net.macvtap.empty() ? 0 : 1) +
                   (net.fd ? 1 : 0) + (net.user ? 1 : 0) + (net.vhost_user.empty() ? 0 : 1);
  if (ways != 1) {
    throw HostError{"-n wants exactly one of bridge=NAME, tap=NAME, macvtap=NAME, fd=N, user and vhost-user=SOCKET"};
  }
  if (mode && net.macvtap.empty()) {
    throw HostError{"-n mode= goes with macvtap=NAME only"};
  }
  if (!net.forwards.empty() && !net.user) {
    throw HostError{"-n hostfwd= goes with user only: on a network of its own the guest can be reached anyway"};
  }
  if (!net.vhost_user.empty() && (net.port.rate != 0 || !net.port.pcap.empty() || net.vhost == Vhost::On)) {
    throw HostError{
        "-n vhost-user= goes without rate=, pcap= and vhost=: its frames never come by here, the back-end has them"};
  }
  if (net.user && (net.queues != 1 || net.vhost == Vhost::On)) {
    throw HostError{"-n user has one queue pair and no vhost-net: its frames go through passt"};
  }
  if (net.user && net.port.mtu.value_or(0) > PasstOptions::kMostMtu) {
    throw HostError{fmt::format("-n user,mtu={}: passt carries {} at most", *net.port.mtu, PasstOptions::kMostMtu)};
  }
  if (net.fd && net.queues != 1) {
    throw HostError{"-n fd=N has one queue pair; for several give tap=NAME, macvtap=NAME or bridge=NAME"};
  }
  if (net.port.rate != 0 && net.bridge.empty() && net.vhost == Vhost::On) {
    throw HostError{"-n rate= and vhost=on: frames that the kernel carries cannot be counted here"};
  }
  if (!net.port.pcap.empty() && net.vhost == Vhost::On) {
    throw HostError{"-n pcap= and vhost=on: frames that the kernel carries cannot be captured here; leave vhost= out"};
  }
  return net;
}

}  // namespace martlet
