#include "devices/virtio/console_port_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "vmm/base/error.h"
#include "vmm/base/options.h"

namespace martlet::virtio {
namespace {

void check_name(const std::string& name) {
  const auto refuse = [&](std::string_view why) {
    throw HostError{fmt::format("--port: '{}' is no name for a port: {}", name, why)};
  };
  if (name.empty()) {
    throw HostError{"--port: every port needs a name: --port name=NAME,socket=PATH"};
  }
  if (name.size() > PortOptions::kLongestName) {
    refuse(fmt::format("it has {} bytes, at most {} are possible", name.size(), PortOptions::kLongestName));
  }
  // It becomes a file's name in the guest, /dev/virtio-ports/NAME, and a line of an attribute in sysfs.
  const auto is_odd = [](char c) { return c == '/' || static_cast<unsigned char>(c) < ' ' || c == '\x7f'; };
  if (std::ranges::any_of(name, is_odd) || name == "." || name == "..") {
    refuse("it becomes a file's name in the guest");
  }
}

}  // namespace

PortOptions parse_port_options(std::string_view text) {
  using Kind = SerialTarget::Kind;
  Options options{text, "--port"};
  PortOptions port{.name = options.take("name").value_or("")};
  std::optional<SerialTarget> target;
  const auto found = [&](Kind kind, std::string path) {
    if (target) {
      throw HostError{fmt::format("--port {}: one place is enough: stdio, null, pty, file=PATH or socket=PATH", text)};
    }
    target = SerialTarget{.kind = kind, .path = std::move(path)};
  };
  for (const auto& [word, kind] : {std::pair{"stdio", Kind::Stdio}, {"null", Kind::Null}, {"pty", Kind::Pty}}) {
    if (options.take_flag(word).value_or(false)) {
      found(kind, {});
    }
  }
  for (const auto& [key, kind] : {std::pair{"file", Kind::File}, {"socket", Kind::Socket}}) {
    if (auto path = options.take(key)) {
      if (path->empty()) {
        throw HostError{fmt::format("--port {}: {}= wants a path", text, key)};
      }
      found(kind, std::move(*path));
    }
  }
  options.finish();
  if (!target) {
    throw HostError{fmt::format("--port {}: say where it leads: stdio, null, pty, file=PATH or socket=PATH", text)};
  }
  check_name(port.name);
  port.target = std::move(*target);
  return port;
}

void check_ports(const std::vector<PortOptions>& ports) {
  if (ports.size() > kMostPorts) {
    throw HostError{fmt::format("--port: {} ports are too many; at most {} are possible", ports.size(), kMostPorts)};
  }
  for (auto port = ports.begin(); port != ports.end(); ++port) {
    check_name(port->name);
    if (std::find_if(ports.begin(), port, [&](const auto& other) { return other.name == port->name; }) != port) {
      throw HostError{fmt::format("--port: there are two named '{}'; the guest tells them apart by name", port->name)};
    }
  }
  const auto on_stdio = [](const PortOptions& port) { return port.target.kind == SerialTarget::Kind::Stdio; };
  if (std::ranges::count_if(ports, on_stdio) > 1) {
    throw HostError{"--port: stdio can lead to one port only"};
  }
}

}  // namespace martlet::virtio
