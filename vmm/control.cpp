#include "vmm/control.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <optional>
#include <utility>

#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr std::string_view kPrefix = "martlet/";
constexpr std::size_t kMostClients = 16;
constexpr std::string_view kDone = "done ";
constexpr std::string_view kFailed = "failed ";

std::optional<pid_t> parse_pid(std::string_view text) {
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), pid);
  return error == std::errc{} && end == text.data() + text.size() && pid > 0 ? std::optional{pid} : std::nullopt;
}

Fd control_socket(int flags) {
  return Fd{check(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0), "cannot make a Unix socket")};
}

/// Who is at the other end: a client, or whoever called listen().
std::optional<ucred> peer_of(int socket) {
  ucred peer{};
  socklen_t size = sizeof peer;
  return ::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 ? std::optional{peer} : std::nullopt;
}

}  // namespace

void check_vm_name(std::string_view name) {
  constexpr std::size_t kLongest = 64;
  constexpr std::string_view kAllowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";
  if (name.empty() || name.size() > kLongest || name.find_first_not_of(kAllowed) != std::string_view::npos ||
      name.find_first_not_of("0123456789") == std::string_view::npos) {
    throw HostError{fmt::format("--name '{}': expected 1 to {} letters, digits, '-', '_' and '.', and not digits alone",
                                name, kLongest)};
  }
}

std::vector<VmAddress> parse_unix_sockets(std::string_view table) {
  std::vector<VmAddress> vms;
  while (!table.empty()) {
    const auto line = table.substr(0, table.find('\n'));
    table.remove_prefix(std::min(line.size() + 1, table.size()));
    const auto at = line.find(" @martlet/");
    if (at == std::string_view::npos) {
      continue;
    }
    const auto address = line.substr(at + 2 + kPrefix.size());
    const auto slash = address.find('/');
    const auto pid = parse_pid(address.substr(0, slash));
    if (slash == std::string_view::npos || !pid) {
      continue;
    }
    // A connection's end has the same address.
    if (VmAddress vm{.pid = *pid, .name = std::string{address.substr(slash + 1)}}; std::ranges::count(vms, vm) == 0) {
      vms.push_back(std::move(vm));
    }
  }
  return vms;
}

ControlAddress control_address(const VmAddress& vm) {
  const auto text = fmt::format("{}{}/{}", kPrefix, vm.pid, vm.name);
  ControlAddress result;
  result.address.sun_family = AF_UNIX;
  const auto size = std::min(text.size(), sizeof result.address.sun_path - 1);
  text.copy(result.address.sun_path + 1, size);  // behind a NUL: no file
  result.size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + size);
  return result;
}

ControlSocket::ControlSocket(EventLoop& loop, std::string_view name, Handler handler)
    : loop_{loop}, handler_{std::move(handler)}, socket_{control_socket(SOCK_NONBLOCK)} {
  const auto where = control_address({.pid = ::getpid(), .name = std::string{name}});
  check(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&where.address), where.size),
        "martlet dump will not find this VM: cannot listen");
  check(::listen(socket_.get(), kMostClients), "martlet dump will not find this VM: cannot listen");
  loop_.watch(socket_.get(), EPOLLIN, [this](std::uint32_t) { accept(); });
}

ControlSocket::~ControlSocket() {
  loop_.unwatch(socket_.get());
  for (const auto& [fd, client] : clients_) {
    loop_.unwatch(fd);
  }
}

void ControlSocket::accept() {
  auto client = std::make_shared<Fd>(::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!*client || clients_.size() >= kMostClients) {
    return;
  }
  const auto peer = peer_of(client->get());
  if (!peer || (peer->uid != 0 && peer->uid != ::geteuid())) {
    static constexpr std::string_view kRefused = "failed this VM is another user's";
    static_cast<void>(::send(client->get(), kRefused.data(), kRefused.size(), MSG_NOSIGNAL));
    return;
  }
  const int fd = client->get();
  clients_.emplace(fd, std::move(client));
  loop_.watch(fd, EPOLLIN, [this, fd](std::uint32_t) { read(fd); });
}

void ControlSocket::read(int client) {
  std::array<char, kControlMessage> message{};
  const auto size = ::recv(client, message.data(), message.size(), 0);
  if (size < 0 && (errno == EAGAIN || errno == EINTR)) {
    return;
  }
  loop_.unwatch(client);
  const auto connection = std::move(clients_.extract(client).mapped());
  if (size <= 0) {
    return;
  }
  const auto answer = [connection](std::string_view kind) {
    return [connection, kind](std::string_view text) {
      const auto line = fmt::format("{}{}", kind, text.substr(0, kControlMessage - kFailed.size()));
      static_cast<void>(::send(connection->get(), line.data(), line.size(), MSG_NOSIGNAL));
    };
  };
  handler_({message.data(), static_cast<std::size_t>(size)}, {.done = answer(kDone), .failed = answer(kFailed)});
}

}  // namespace martlet
