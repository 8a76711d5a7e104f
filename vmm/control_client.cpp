// The end of a control socket that asks.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <pwd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <fstream>
#include <iterator>
#include <optional>

#include "vmm/base/error.h"
#include "vmm/control.h"

namespace martlet {
namespace {

std::vector<VmAddress> running_vms() {
  std::ifstream table{"/proc/net/unix"};
  if (!table) {
    throw HostError{"cannot open /proc/net/unix, which lists the VMs that run here: is /proc mounted?"};
  }
  return parse_unix_sockets(std::string{std::istreambuf_iterator<char>{table}, {}});
}

std::string title(const VmAddress& vm) {
  return vm.name.empty() ? std::to_string(vm.pid) : fmt::format("{} ({})", vm.name, vm.pid);
}

[[noreturn]] void refuse(std::string_view wanted, const std::vector<VmAddress>& vms) {
  std::vector<std::string> titles;
  std::ranges::transform(vms, std::back_inserter(titles), title);
  throw HostError{fmt::format("no VM {} runs here; {}", wanted,
                              titles.empty() ? "none does" : fmt::format("there are: {}", fmt::join(titles, ", ")))};
}

/// The one that `wanted`, a PID or a name, means.
VmAddress find_vm(std::string_view wanted) {
  const auto vms = running_vms();
  std::vector<VmAddress> found;
  std::ranges::copy_if(vms, std::back_inserter(found),
                       [&](const VmAddress& vm) { return vm.name == wanted || std::to_string(vm.pid) == wanted; });
  if (found.empty() || wanted.empty()) {
    refuse(wanted, vms);
  }
  if (found.size() > 1) {
    throw HostError{fmt::format("{} VMs have the name {}: say which by its PID, {} or {}", found.size(), wanted,
                                found.front().pid, found.back().pid)};
  }
  return found.front();
}

std::string user(uid_t uid) {
  const auto* const entry = ::getpwuid(uid);
  return entry != nullptr ? entry->pw_name : fmt::format("user {}", uid);
}

Fd connect_to(const VmAddress& vm) {
  Fd socket{check(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), "cannot make a Unix socket")};
  const auto where = control_address(vm);
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&where.address), where.size) != 0) {
    if (errno == ECONNREFUSED) {
      throw HostError{fmt::format("VM {} has just ended", title(vm))};
    }
    fail_errno(errno, fmt::format("cannot talk to VM {}", title(vm)));
  }
  ucred peer{};
  socklen_t size = sizeof peer;
  check(::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size), "cannot tell whose a VM is");
  if (peer.pid != vm.pid) {  // anybody can take such an address
    throw HostError{fmt::format("process {} calls itself VM {}: it is none, or runs in another PID namespace", peer.pid,
                                title(vm))};
  }
  if (::geteuid() != 0 && ::geteuid() != peer.uid) {
    throw HostError{
        fmt::format("VM {} is {}'s; nobody but {} and root may ask it", title(vm), user(peer.uid), user(peer.uid))};
  }
  return socket;
}

}  // namespace

std::string ask_vm(std::string_view vm, std::string_view request) {
  const auto found = find_vm(vm);
  const auto socket = connect_to(found);
  if (request.size() > kControlMessage) {
    throw HostError{"the path is too long"};
  }
  std::array<char, kControlMessage> message{};
  ssize_t size = ::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL);
  if (size > 0) {
    do {
      size = ::recv(socket.get(), message.data(), message.size(), 0);
    } while (size < 0 && errno == EINTR);
  }
  const std::string_view answer{message.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0))};
  if (answer.starts_with("done ")) {
    return std::string{answer.substr(5)};
  }
  if (answer.starts_with("failed ")) {
    throw HostError{fmt::format("VM {}: {}", title(found), answer.substr(7))};
  }
  throw HostError{fmt::format("VM {} ended before it answered", title(found))};
}

}  // namespace martlet
