#include "net/options.h"

#include <fmt/format.h>

#include <limits>

#include "vmm/base/error.h"
#include "vmm/base/options.h"

namespace martlet {

NetOptions parse_net(std::string_view text) {
  Options options{text, "-n"};
  NetOptions net;
  net.bridge = options.take("bridge").value_or("");
  net.tap = options.take("tap").value_or("");
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
  const auto policy = options.take("policy");
  net.port = take_policy(options, policy ? read_policy_file(*policy) : PortPolicy{}, "-n ");
  if (const auto queues = options.take_number("queues", {.min = 1, .max = kMaxNetPairs})) {
    net.queues = static_cast<std::uint16_t>(*queues);
  }
  if (const auto vhost =
          options.take_choice<Vhost>("vhost", {{"auto", Vhost::Auto}, {"on", Vhost::On}, {"off", Vhost::Off}})) {
    net.vhost = *vhost;
  }
  net.pcap = options.take("pcap").value_or("");
  options.finish();

  const int ways = (net.bridge.empty() ? 0 : 1) + (net.tap.empty() ? 0 : 1) + (net.fd ? 1 : 0);
  if (ways != 1) {
    throw HostError{"-n wants exactly one of bridge=NAME, tap=NAME and fd=N"};
  }
  if (net.fd && net.queues != 1) {
    throw HostError{"-n fd=N has one queue pair; for several give tap=NAME or bridge=NAME"};
  }
  if (net.port.rate != 0 && net.bridge.empty() && net.vhost == Vhost::On) {
    throw HostError{"-n rate= and vhost=on: frames that the kernel carries cannot be counted here"};
  }
  if (!net.pcap.empty() && net.vhost == Vhost::On) {
    throw HostError{"-n pcap= and vhost=on: frames that the kernel carries cannot be captured here; leave vhost= out"};
  }
  return net;
}

}  // namespace martlet
