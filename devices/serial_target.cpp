#include "devices/serial_target.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "vmm/base/error.h"

namespace martlet {

SerialTarget parse_serial_target(std::string_view text) {
  using Kind = SerialTarget::Kind;
  constexpr std::array<std::pair<std::string_view, Kind>, 3> kPlain{
      {{"stdio", Kind::Stdio}, {"null", Kind::Null}, {"pty", Kind::Pty}}};
  constexpr std::array<std::pair<std::string_view, Kind>, 2> kWithPath{
      {{"file=", Kind::File}, {"socket=", Kind::Socket}}};
  for (const auto& [name, kind] : kPlain) {
    if (text == name) {
      return {.kind = kind, .path = {}};
    }
  }
  for (const auto& [prefix, kind] : kWithPath) {
    if (text.starts_with(prefix) && text.size() > prefix.size()) {
      return {.kind = kind, .path = std::string{text.substr(prefix.size())}};
    }
  }
  throw HostError{
      fmt::format("'{}' is no place for a serial port: give stdio, null, pty, file=PATH or socket=PATH", text)};
}

Pty open_pty() {
  Pty pty;
  pty.master = Fd{check(::posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), "cannot make a pseudo-terminal")};
  check(::grantpt(pty.master.get()), "cannot make a pseudo-terminal: grantpt");
  check(::unlockpt(pty.master.get()), "cannot make a pseudo-terminal: unlockpt");
  std::array<char, 64> name{};
  if (const int error = ::ptsname_r(pty.master.get(), name.data(), name.size()); error != 0) {
    fail_errno(error, "cannot make a pseudo-terminal: ptsname");
  }
  pty.path = name.data();
  pty.slave = open_file(pty.path, O_RDWR | O_NOCTTY);
  // Raw before anybody opens it: with ECHO the guest would read its own output.
  termios settings{};
  check(::tcgetattr(pty.slave.get(), &settings), pty.path);
  ::cfmakeraw(&settings);
  check(::tcsetattr(pty.slave.get(), TCSANOW, &settings), pty.path);
  return pty;
}

namespace {

Fd unix_socket() {
  return Fd{check(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "cannot make a Unix socket")};
}

ino_t inode_of(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 ? status.st_ino : 0;
}

/// A socket file that refuses connections was left behind by somebody who was killed.
bool is_stale(const std::string& path, const sockaddr_un& address) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) {
    throw HostError{fmt::format(
        "cannot listen at {}: there is something that is not a socket; move it or choose another path", path)};
  }
  const auto probe = unix_socket();
  return ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
         errno == ECONNREFUSED;
}

}  // namespace

HostEnds open_ends(const SerialTarget& target) {
  using Kind = SerialTarget::Kind;
  HostEnds ends;
  switch (target.kind) {
    case Kind::Stdio:
      ends.name = "stdout";
      ends.input = HostStream::shared(STDIN_FILENO, HostStream::Direction::In);
      ends.output = HostStream::shared(STDOUT_FILENO, HostStream::Direction::Out);
      ends.job_controlled = ::isatty(STDIN_FILENO) == 1;
      break;
    case Kind::Null:
      break;
    case Kind::Pty:
      ends.pty = open_pty();
      ends.name = ends.pty.path;
      ends.input = HostStream{duplicate(ends.pty.master.get())};
      ends.output = HostStream{std::move(ends.pty.master)};
      break;
    case Kind::File:
      ends.name = target.path;  // O_NONBLOCK: a FIFO that nobody reads is refused here, and does not block later
      ends.output = HostStream{open_file(target.path, O_WRONLY | O_CREAT | O_TRUNC | O_NONBLOCK | O_NOCTTY, 0666)};
      break;
    case Kind::Socket:
      ends.name = target.path;
      break;
  }
  return ends;
}

UnixListener::UnixListener(std::string path) : path_{std::move(path)}, socket_{unix_socket()} {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof address.sun_path) {
    throw HostError{fmt::format("cannot listen at {}: a socket's path has at most {} bytes, this one has {}", path_,
                                sizeof address.sun_path - 1, path_.size())};
  }
  path_.copy(address.sun_path, path_.size());
  const auto bind = [&] { return ::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address); };
  int bound = bind();
  if (bound != 0 && errno == EADDRINUSE) {
    if (!is_stale(path_, address)) {
      throw HostError{fmt::format("cannot listen at {}: somebody already does; choose another path", path_)};
    }
    ::unlink(path_.c_str());
    bound = bind();
  }
  check(bound, "cannot listen at " + path_);
  if (::listen(socket_.get(), 1) != 0) {
    const int error = errno;
    ::unlink(path_.c_str());
    fail_errno(error, "cannot listen at " + path_);
  }
  file_ = inode_of(path_);
}

UnixListener::~UnixListener() {
  if (inode_of(path_) == file_) {
    ::unlink(path_.c_str());
  }
}

Fd UnixListener::accept() const noexcept {
  return Fd{::accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
}

}  // namespace martlet
