// The martlet program: command line in, exit code out. All errors of the host end here.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

#include "vmm/base/error.h"
#include "vmm/cli.h"
#include "vmm/debug/verdict.h"
#include "vmm/dump_command.h"
#include "vmm/host_check.h"
#include "vmm/run_command.h"

namespace martlet {
namespace {

/// A closed standard descriptor would be reused for a file of ours, and the guest's console go there.
void open_standard_descriptors() {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (::fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
      static_cast<void>(::open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY));  // takes the lowest free: fd
    }
  }
}

/// Writes `text` to stdout; HostError when it will not go there.
void print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    fail_errno(errno, "cannot write to stdout");
  }
}

int run_program(int argc, const char* const* argv) {
  const auto command = parse_command_line(argc, argv);
  if (const auto* text = std::get_if<PrintCommand>(&command)) {
    print(text->text);
    return static_cast<int>(ExitCode::Success);
  }
  if (std::holds_alternative<CheckCommand>(command)) {
    const auto report = check_host();
    print(report.text);
    return static_cast<int>(report.usable ? ExitCode::Success : ExitCode::HostError);
  }
  if (const auto* dump = std::get_if<DumpCommand>(&command)) {
    print(dump_vm(*dump) + "\n");
    return static_cast<int>(ExitCode::Success);
  }
  if (const auto* net = std::get_if<NetCommand>(&command)) {
    return net->run();
  }
  return run_guest(std::get<RunCommand>(command));
}

}  // namespace
}  // namespace martlet

int main(int argc, char** argv) {
  try {
    martlet::open_standard_descriptors();
    ::signal(SIGPIPE, SIG_IGN);  // a reader that goes away is an error of its own descriptor, no more
    ::signal(SIGXFSZ, SIG_IGN);  // so is a file that may not grow any more
    return martlet::run_program(argc, argv);
  } catch (const std::exception& error) {  // HostError, and what the standard library may throw: no memory
    fmt::print(stderr, "martlet: {}\n", error.what());
    return static_cast<int>(martlet::ExitCode::HostError);
  }
}
