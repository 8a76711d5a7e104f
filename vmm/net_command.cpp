#include "vmm/net_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/switch.h"
#include "net/switch_capture.h"
#include "vmm/base/error.h"
#include "vmm/base/event_loop.h"
#include "vmm/debug/verdict.h"
#include "vmm/net_port_command.h"
#include "vmm/net_show.h"
#include "vmm/signals.h"

namespace martlet {
namespace {

/// Writes `text` and a newline to stdout; HostError when it will not go there.
void say(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fputc('\n', stdout) == EOF ||
      std::fflush(stdout) != 0) {
    fail_errno(errno, "cannot write to stdout");
  }
}

void tell(const SwitchNews& news) {
  for (const auto& line : news.lines) {
    say(line);
  }
}

/// Adds sub-command `name`: once the command line is read, `run` does what the Options filled in by it say.
template <class Given>
CLI::App* add_command(CLI::App& net, NetCommand& chosen, const char* name, const char* help,
                      std::shared_ptr<Given> given, void (*run)(const Given&)) {
  auto* command = net.add_subcommand(name, help);
  command->allow_extras();
  command->callback([&chosen, given = std::move(given), run] {
    chosen.run = [given, run] {
      run(*given);
      return static_cast<int>(ExitCode::Success);
    };
  });
  return command;
}

void add_name(CLI::App& command, std::string& name) { command.add_option("NAME", name, "The switch")->required(); }

// --- create

struct Create {
  SwitchOptions options{};
  std::string mode = "internal";
  std::vector<std::string> addresses{};
};

void create(const Create& given) {
  auto options = given.options;
  const auto mode = switch_mode(given.mode);
  if (!mode) {
    throw HostError{fmt::format("--mode {}: expected one of internal, private, external", given.mode)};
  }
  options.mode = *mode;
  for (const auto& address : given.addresses) {
    options.addresses.push_back(parse_host_address(address, "--address "));
  }
  tell(create_switch(options));
}

void add_create(CLI::App& net, NetCommand& chosen) {
  auto given = std::make_shared<Create>();
  auto& create_app = *add_command(net, chosen, "create", "Make a switch", given, create);
  add_name(create_app, given->options.name);
  create_app
      .add_option("--mode", given->mode,
                  "Whom guests reach besides each other [internal]: the host; nobody;\n"
                  "the host and its network")
      ->type_name("internal|private|external");
  create_app
      .add_option("--uplink", given->options.uplink,
                  "external: the network card that leads there. It becomes a port, and the host's addresses and\n"
                  "routes move to the switch; back when it is deleted")
      ->type_name("NIC");
  create_app.add_flag("--move-default-route", given->options.may_move_default_route,
                      "external: even if the card is what this host depends on");
  create_app.add_option("--address", given->addresses, "internal: the host's address; IPv4, IPv6 or one of each")
      ->type_name("IP/PREFIX")
      ->allow_extra_args(false);
  create_app.add_flag("--dhcp", given->options.dhcp, "internal: guests get addresses and names (by dnsmasq)");
  create_app.add_flag("--nat", given->options.nat,
                      "internal: guests reach by IPv4 what the host reaches, by its address");
  create_app.add_flag("--persistent", given->options.persistent,
                      "Have systemd-networkd make it again when the host boots");
}

// --- list, show

struct Show {
  std::string name{};
  std::string port{};
  bool json = false;
};

NetFormat format(const Show& given) { return given.json ? NetFormat::Json : NetFormat::Text; }

void list(const Show& given) { say(list_switches(format(given))); }

void show(const Show& given) {
  if (given.name.empty() == given.port.empty()) {
    throw HostError{"net show wants a switch's name, or --port NAME; martlet net list tells which are there"};
  }
  say(given.port.empty() ? show_switch(given.name, format(given)) : describe_port(given.port));
}

void add_list_and_show(CLI::App& net, NetCommand& chosen) {
  auto listed = std::make_shared<Show>();
  auto& list_app = *add_command(net, chosen, "list", "List the switches of this host", listed, list);
  list_app.add_flag("--json", listed->json, "As JSON");
  auto shown = std::make_shared<Show>();
  auto& show_app = *add_command(net, chosen, "show", "Show a switch", shown, show);
  show_app.add_option("NAME", shown->name, "The switch");
  show_app.add_option("--port", shown->port, "Show a port's settings, such as -n policy=FILE takes")->type_name("NAME");
  show_app.add_flag("--json", shown->json, "As JSON");
}

// --- delete

void remove(const SwitchRemoval& removal) { tell(delete_switch(removal)); }

void add_delete(CLI::App& net, NetCommand& chosen) {
  auto removal = std::make_shared<SwitchRemoval>();
  auto& delete_app = *add_command(net, chosen, "delete", "Delete a switch", removal, remove);
  add_name(delete_app, removal->name);
  delete_app.add_flag("--force", removal->force, "Even while VMs are on it");
}

// --- capture

struct Capture {
  SwitchCapture::Options options{.file = "-"};
};

void capture(const Capture& given) {
  EventLoop loop;
  SignalWatch signals{SIGINT, SIGTERM, SIGHUP};
  SwitchCapture switch_capture{loop, given.options};
  signals.deliver(loop, [&loop](int) { loop.stop(); });
  loop.run();
  const auto counts = switch_capture.finish();
  fmt::print(stderr, "martlet: {} frames captured, {} dropped\n", counts.seen - counts.dropped, counts.dropped);
}

void add_capture(CLI::App& net, NetCommand& chosen) {
  auto given = std::make_shared<Capture>();
  auto& capture_app =
      *add_command(net, chosen, "capture", "Write what enters a switch to a pcapng file, until SIGINT", given, capture);
  add_name(capture_app, given->options.name);
  capture_app.add_option("-w,--write", given->options.file, "Where to [-: stdout]")->type_name("FILE");
  capture_app.add_option("--vlan", given->options.vlan, "Only frames of this VLAN")
      ->type_name("N")
      ->check(CLI::Range(1, 4094));
}

}  // namespace

void add_net_commands(CLI::App& net, NetCommand& chosen) {
  add_create(net, chosen);
  add_list_and_show(net, chosen);
  add_delete(net, chosen);
  add_port_command(net, chosen);
  add_capture(net, chosen);
}

}  // namespace martlet
