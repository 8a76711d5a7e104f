#include "vmm/debug/gdb/server.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "vmm/base/error.h"

namespace martlet::gdb {
namespace {

constexpr std::size_t kReadSize = 4096;
constexpr std::string_view kUnix = "unix:";

void set_option(int fd, int level, int option) {
  const int on = 1;
  ::setsockopt(fd, level, option, &on, sizeof on);  // at worst slower
}

std::string port_of(int fd) {
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  check(::getsockname(fd, reinterpret_cast<sockaddr*>(&bound), &size), "--gdb: getsockname");
  std::array<char, NI_MAXSERV> port{};
  if (::getnameinfo(reinterpret_cast<const sockaddr*>(&bound), size, nullptr, 0, port.data(), port.size(),
                    NI_NUMERICSERV) != 0) {
    throw HostError{"--gdb: the socket's port has no number"};
  }
  return port.data();
}

bool has_left(int fd) {
  pollfd poll{.fd = fd, .events = POLLRDHUP, .revents = 0};
  return ::poll(&poll, 1, 0) == 1;
}

bool would_block() { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

}  // namespace

Server::Server(EventLoop& loop, DebugTarget& target, const Options& options)
    : loop_{loop}, stub_{target, {.version = options.version, .output_ready = [this] { serve(); }}} {
  const std::string_view where = options.where;
  if (where.starts_with(kUnix)) {
    const std::string path{where.substr(kUnix.size())};
    if (path.empty()) {
      throw HostError{"--gdb unix: expected a path after it"};
    }
    unix_ = std::make_unique<UnixListener>(path);
    listener_ = unix_->fd();
    address_ = path;
  } else {
    const auto colon = where.rfind(':');
    // By number: a container may have no /etc/hosts, and then neither we nor gdb know what localhost is.
    auto host = colon == std::string_view::npos || colon == 0 ? "127.0.0.1" : where.substr(0, colon);
    const auto port = where.substr(colon == std::string_view::npos ? 0 : colon + 1);
    if (port.empty() || port.size() > 5 || port.find_first_not_of("0123456789") != std::string_view::npos ||
        std::stoi(std::string{port}) > 0xffff) {
      throw HostError{fmt::format("--gdb {}: expected [HOST:]PORT or unix:PATH, for example 1234", where)};
    }
    listen_at(host, port);
  }
  loop_.watch(listener_, EPOLLIN, [this](std::uint32_t) { accept(); });
}

void Server::listen_at(std::string_view host, std::string_view port) {
  const bool bracketed = host.starts_with('[') && host.ends_with(']');  // an IPv6 address
  const std::string node{bracketed ? host.substr(1, host.size() - 2) : host};
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(node.c_str(), std::string{port}.c_str(), &hints, &found); error != 0) {
    throw HostError{fmt::format("--gdb {}:{}: {}", host, port, ::gai_strerror(error))};
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> addresses{found, &::freeaddrinfo};
  int error = 0;
  for (const auto* at = found; at != nullptr && !tcp_; at = at->ai_next) {
    Fd socket{::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    set_option(socket.get(), SOL_SOCKET, SO_REUSEADDR);
    if (::bind(socket.get(), at->ai_addr, at->ai_addrlen) == 0 && ::listen(socket.get(), 1) == 0) {
      tcp_ = std::move(socket);
    } else {
      error = errno;
      if (error == EADDRINUSE) {
        break;  // the same port of another of the host's addresses would be somebody else's by name
      }
    }
  }
  if (!tcp_) {
    fail_errno(error, fmt::format("--gdb: cannot listen at {}:{}", host, port));
  }
  listener_ = tcp_.get();
  address_ = fmt::format("{}:{}", host, port_of(listener_));
}

Server::~Server() {
  drop();
  loop_.unwatch(listener_);
}

void Server::accept() {
  Fd client{::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
  if (!client) {
    return;
  }
  if (client_ && has_left(client_.get())) {
    drop();
  }
  if (client_) {
    return;  // one at a time: this one finds its connection closed
  }
  set_option(client.get(), IPPROTO_TCP, TCP_NODELAY);
  set_option(client.get(), SOL_SOCKET, SO_KEEPALIVE);
  client_ = std::move(client);
  loop_.watch(client_.get(), EPOLLIN | EPOLLRDHUP, [this](std::uint32_t events) { on_client(events); });
  stub_.connect();
}

void Server::on_client(std::uint32_t events) {
  const bool readable = (events & EPOLLIN) != 0 && input_.empty();
  const bool gone = (events & (EPOLLHUP | EPOLLERR)) != 0 || (!readable && (events & EPOLLRDHUP) != 0);
  if ((readable && !read()) || gone) {
    drop();
    return;
  }
  serve();
}

/// False when the client has left.
bool Server::read() {
  input_.resize(kReadSize);
  const auto size = ::read(client_.get(), input_.data(), input_.size());
  input_.resize(size > 0 ? static_cast<std::size_t>(size) : 0);
  return size > 0 || (size < 0 && would_block());
}

bool Server::write() {
  while (!stub_.output().empty()) {
    const auto size = ::send(client_.get(), stub_.output().data(), stub_.output().size(), MSG_NOSIGNAL);
    if (size < 0) {
      return would_block();
    }
    stub_.sent(static_cast<std::size_t>(size));
  }
  return true;
}

/// Hands the client's bytes to the stub and the stub's to the client, as far as each takes them.
void Server::serve() {
  if (!client_ || serving_) {
    return;
  }
  serving_ = true;
  bool connected = true;
  bool more = true;
  while (connected && more) {
    const std::size_t taken = stub_.feed(input_);
    input_.erase(0, taken);
    more = taken != 0 || !stub_.output().empty();
    connected = write();
    more = more && stub_.output().empty();
  }
  serving_ = false;
  if (!connected || (stub_.done() && stub_.output().empty())) {
    drop();
    return;
  }
  loop_.change(client_.get(), EPOLLRDHUP | (input_.empty() && !stub_.done() ? EPOLLIN : 0U) |
                                  (stub_.output().empty() ? 0U : EPOLLOUT));
}

void Server::drop() {
  if (client_) {
    loop_.unwatch(client_.get());
    client_ = Fd{};
    input_.clear();
    stub_.disconnect();
  }
}

}  // namespace martlet::gdb
