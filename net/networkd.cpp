#include "net/networkd.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <string_view>

#include "vmm/base/error.h"
#include "vmm/base/fd.h"

namespace martlet {
namespace {

constexpr const char* kAllVlans = "\n[BridgeVLAN]\nVLAN=1-4094\nPVID=1\nEgressUntagged=1\n";
constexpr const char* kUplink = "-uplink.network";
constexpr const char* kFolder = "/etc/systemd/network";

std::string path_of(const std::string& name, std::string_view rest) {
  return fmt::format("{}/10-martlet-{}{}", kFolder, name, rest);
}

std::string network_of_host(const NetworkdSwitch& it) {
  if (it.addresses.empty()) {
    return "DHCP=yes\n";
  }
  std::string text = it.leases_ipv4 ? "DHCP=ipv4\n" : "";
  for (const auto& address : it.addresses) {
    text += "Address=" + to_string(address) + "\n";
  }
  for (const auto& gateway : it.gateways) {  // those of leased addresses come with them
    const int family = gateway.find(':') == std::string::npos ? AF_INET : AF_INET6;
    if (std::ranges::find(it.addresses, family, &HostAddress::family) != it.addresses.end()) {
      text += "Gateway=" + gateway + "\n";
    }
  }
  return text;
}

std::string network_of_guests(const SwitchOptions& options) {
  std::string text = "ConfigureWithoutCarrier=yes\n";
  for (const auto& address : options.addresses) {
    text += "Address=" + to_string(address) + "\n";
  }
  const auto six = std::ranges::find(options.addresses, AF_INET6, &HostAddress::family);
  const bool advertised = options.dhcp && six != options.addresses.end();
  const bool leases = options.dhcp && std::ranges::count(options.addresses, AF_INET, &HostAddress::family) != 0;
  text += leases ? "DHCPServer=yes\n" : "";
  text += options.nat ? "IPMasquerade=ipv4\n" : "";
  if (advertised) {
    text += fmt::format("IPv6SendRA=yes\n\n[IPv6SendRA]\nRouterLifetimeSec=0\n\n[IPv6Prefix]\nPrefix={}\n",
                        to_string(six->network()));
  }
  return text;
}

}  // namespace

std::vector<NetworkdFile> networkd_files(const NetworkdSwitch& it) {
  const auto& options = it.mark.options;
  const auto& name = options.name;
  const bool external = options.mode == SwitchMode::External;
  const auto begin = fmt::format("# Made by martlet net create {}; martlet net delete {} takes it away.\n", name, name);
  auto mark = it.mark;
  mark.finished = true;
  std::vector<NetworkdFile> files{
      {.path = path_of(name, ".netdev"),
       .text = fmt::format("{}[NetDev]\nName={}\nKind=bridge\nMACAddress={}\n\n[Bridge]\nSTP=no\nForwardDelaySec=0\n"
                           "MulticastSnooping=no\n{}",
                           begin, name, to_string(it.address), it.tells_vlans_apart ? "VLANFiltering=yes\n" : "")},
      {.path = path_of(name, ".link"),
       .text = fmt::format("{}[Match]\nOriginalName={}\n\n[Link]\nAlias={}\nMACAddressPolicy=none\n", begin, name,
                           to_alias(mark))},
      {.path = path_of(name, ".network"),
       .text = fmt::format("{}[Match]\nName={}\n\n[Network]\n{}", begin, name,
                           external ? network_of_host(it) : network_of_guests(options))}};
  if (external) {
    files.push_back({.path = path_of(name, kUplink),
                     .text = fmt::format("{}[Match]\nName={}\n\n[Network]\nBridge={}\n{}", begin, options.uplink, name,
                                         it.tells_vlans_apart ? kAllVlans : "")});
  }
  return files;
}

void write_networkd_files(const NetworkdSwitch& it) {
  std::error_code trouble;
  std::filesystem::create_directories(kFolder, trouble);
  for (const auto& file : networkd_files(it)) {
    const Fd fd = open_file(file.path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (::write(fd.get(), file.text.data(), file.text.size()) != static_cast<ssize_t>(file.text.size())) {
      fail_errno(errno, "cannot write " + file.path);
    }
  }
}

int remove_networkd_files(const std::string& name) {
  int removed = 0;
  for (const auto* const rest : {".netdev", ".link", ".network", kUplink}) {
    const auto path = path_of(name, rest);
    if (::access(path.c_str(), F_OK) != 0) {
      continue;
    }
    if (::unlink(path.c_str()) != 0) {
      fail_errno(errno, "cannot remove " + path);
    }
    ++removed;
  }
  return removed;
}

}  // namespace martlet
