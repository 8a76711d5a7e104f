#include "devices/serial_target.h"

#include <fcntl.h>
#include <fmt/format.h>
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
    case Kind::Stdin:
      ends.name = "stdin";
      ends.input = HostStream::shared(STDIN_FILENO, HostStream::Direction::In);
      ends.job_controlled = ::isatty(STDIN_FILENO) == 1;
      break;
    case Kind::Stdout:
      ends.name = "stdout";
      ends.output = HostStream::shared(STDOUT_FILENO, HostStream::Direction::Out);
      break;
    case Kind::Stderr:
      ends.name = "stderr";
      ends.output = HostStream::shared(STDERR_FILENO, HostStream::Direction::Out);
      break;
  }
  return ends;
}

}  // namespace martlet
