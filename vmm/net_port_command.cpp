#include "vmm/net_port_command.h"

#include <fmt/format.h>
#include <pwd.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cstdio>
#include <memory>
#include <string_view>
#include <vector>

#include "net/kept_port.h"
#include "net/port.h"
#include "vmm/base/error.h"
#include "vmm/base/options.h"

namespace martlet {
namespace {

struct Port {
  std::string name{};
  std::string owner{};
  std::string bridge = "br0";
  std::vector<std::string> settings{};
  bool remove = false;
};

uid_t find_user(const std::string& name) {
  uid_t id = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), id);
  if (error == std::errc{} && end == name.data() + name.size()) {
    return id;
  }
  const auto* const user = ::getpwnam(name.c_str());
  if (user == nullptr) {
    throw HostError{fmt::format("net port: --owner {}: there is no such user", name)};
  }
  return user->pw_uid;
}

int run_port(const Port& port) {
  if (port.remove) {
    if (!port.owner.empty() || !port.settings.empty()) {
      throw HostError{"net port: --delete wants nothing but the port's name"};
    }
    delete_kept_port(port.name);
    return 0;
  }
  if (port.owner.empty()) {
    throw HostError{fmt::format("net port {}: whose shall it be? --owner USER (or --delete)", port.name)};
  }
  KeptPort kept{.name = port.name, .bridge = port.bridge, .owner = find_user(port.owner), .policy = {}};
  if (!port.settings.empty()) {
    Options options{fmt::format("{}", fmt::join(port.settings, ",")), "net port"};
    const auto file = options.take("policy");
    kept.policy = take_policy(options, file ? read_policy_file(*file) : PortPolicy{}, "net port ");
    options.finish();
  }
  const auto guest = make_kept_port(kept);
  fmt::print("{} is on {} for {}: martlet run … -n tap={}\n", port.name, port.bridge, to_string(guest), port.name);
  return 0;
}

}  // namespace

void add_port_command(CLI::App& net, NetCommand& chosen) {
  auto port = std::make_shared<Port>();
  auto* const command = net.add_subcommand("port", "Make a port that stays, for a user who may make none");
  command->allow_extras();
  command->add_option("NAME", port->name, "The port's TAP")->required();
  command->add_option("SETTING", port->settings,
                      "As for run -n bridge=: mac=ADDRESS, mtu=N, spoof=deny|allow, vlan=N, vlans=A-B+C, native=N,\n"
                      "isolated=on|off, rate=BYTES, burst=BYTES, pcap=FILE, policy=FILE");
  command->add_option("--owner", port->owner, "Who may run a VM on it: martlet run … -n tap=NAME")->type_name("USER");
  command->add_option("--bridge", port->bridge, "The switch [br0]")->type_name("NAME");
  command->add_flag("--delete", port->remove, "Take it away, with all that belongs to it");
  command->callback([&chosen, port] { chosen.run = [port] { return run_port(*port); }; });
}

std::string describe_port(const std::string& name) {
  Rtnetlink netlink;
  const auto link = netlink.find(name);
  if (!link) {
    throw HostError{fmt::format("net show --port {}: there is no such interface", name)};
  }
  return to_json(read_port(netlink, *link));
}

}  // namespace martlet
