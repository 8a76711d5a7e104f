#include "net/options.h"

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
  if (const auto mac = options.take("mac")) {
    net.mac = parse_mac(*mac, "-n mac=");
  }
  // RFC 791: no IPv4 link may carry less than 68 bytes.
  if (const auto mtu = options.take_number("mtu", {.min = 68, .max = 65535})) {
    net.mtu = static_cast<std::uint16_t>(*mtu);
  }
  if (const auto queues = options.take_number("queues", {.min = 1, .max = kMaxNetPairs})) {
    net.queues = static_cast<std::uint16_t>(*queues);
  }
  if (const auto vhost =
          options.take_choice<Vhost>("vhost", {{"auto", Vhost::Auto}, {"on", Vhost::On}, {"off", Vhost::Off}})) {
    net.vhost = *vhost;
  }
  const auto spoof = options.take_choice<Spoof>("spoof", {{"deny", Spoof::Deny}, {"allow", Spoof::Allow}});
  const auto rate = options.take_size("rate");
  const auto burst = options.take_size("burst");
  net.pcap = options.take("pcap").value_or("");
  options.finish();

  net.rate = rate.value_or(0);
  net.burst = burst.value_or(0);
  const int ways = (net.bridge.empty() ? 0 : 1) + (net.tap.empty() ? 0 : 1) + (net.fd ? 1 : 0);
  if (ways != 1) {
    throw HostError{"-n wants exactly one of bridge=NAME, tap=NAME and fd=N"};
  }
  if (spoof && net.bridge.empty()) {
    throw HostError{"-n spoof= wants bridge=NAME: the port of another TAP is what its maker made it"};
  }
  net.spoof = spoof.value_or(Spoof::Deny);
  if (net.fd && net.queues != 1) {
    throw HostError{"-n fd=N has one queue pair; for several give tap=NAME or bridge=NAME"};
  }
  if (rate && net.rate == 0) {
    throw HostError{"-n rate=0: nothing would ever pass"};
  }
  if (burst && !rate) {
    throw HostError{"-n burst= wants rate= too"};
  }
  if (net.rate != 0 && net.vhost == Vhost::On) {
    throw HostError{"-n rate= and vhost=on: frames that the kernel carries cannot be counted here"};
  }
  if (!net.pcap.empty() && net.vhost == Vhost::On) {
    throw HostError{"-n pcap= and vhost=on: frames that the kernel carries cannot be captured here; leave vhost= out"};
  }
  return net;
}

}  // namespace martlet
