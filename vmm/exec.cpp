#include "vmm/exec.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstring>
#include <system_error>
#include <utility>

#include "guest/image.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

constexpr std::size_t kLongestCommand = (128U << 10U) - 1;  // Linux' limit for one argument of a program
constexpr std::size_t kOutputPort = 1;                      // of exec_ports()
constexpr std::size_t kErrorPort = 2;

/// "SIGKILL", or just the number.
std::string signal_name(int signal) {
  const char* name = ::sigabbrev_np(signal);
  return name != nullptr ? fmt::format("SIG{}", name) : fmt::format("signal {}", signal);
}

}  // namespace

void check_exec(const Config& config) {
  if (!config.root && config.initrds.empty()) {
    throw HostError{"--exec runs a command in --root DIR, or in what -i INITRD holds; give one of them"};
  }
  if (config.exec->empty()) {
    throw HostError{"--exec wants a command, such as --exec 'make test'"};
  }
  if (config.exec->size() > kLongestCommand) {
    throw HostError{fmt::format("--exec: the command has {} bytes; at most {} are possible: put it into a script",
                                config.exec->size(), kLongestCommand)};
  }
  if (has_parameter(config.append, "rdinit=")) {
    throw HostError{"-a rdinit= and --exec each name the guest's first program: leave one out"};
  }
  const auto is_stdio = [](const SerialTarget& target) { return target.kind == SerialTarget::Kind::Stdio; };
  const auto refuse = [](std::string_view option) {
    throw HostError{
        fmt::format("{}: with --exec, stdin and stdout are the command's: lead it to null, pty, file=PATH "
                    "or socket=PATH",
                    option)};
  };
  if (is_stdio(config.serial)) {
    refuse("--serial stdio");
  }
  if (config.console && is_stdio(*config.console)) {
    refuse("--console stdio");
  }
  for (const auto& port : config.ports) {
    if (is_stdio(port.target)) {
      refuse(fmt::format("--port name={},stdio", port.name));
    }
    if (port.name.starts_with("martlet.")) {
      throw HostError{fmt::format("--port name={}: with --exec, such names are Martlet's own", port.name)};
    }
  }
}

CpioFiles exec_files(const std::string& command) {
  return {.directory = ".martlet",
          .files = {{.name = "init", .permissions = 0755, .data = guest_init()},
                    {.name = "command", .permissions = 0644, .data = std::as_bytes(std::span{command})}}};
}

std::vector<virtio::PortOptions> exec_ports() {
  using Kind = SerialTarget::Kind;
  return {{.name = "martlet.stdin", .target = {.kind = Kind::Stdin, .path = {}}},
          {.name = "martlet.stdout", .target = {.kind = Kind::Stdout, .path = {}}},
          {.name = "martlet.stderr", .target = {.kind = Kind::Stderr, .path = {}}},
          {.name = "martlet.status", .target = {.kind = Kind::Null, .path = {}}}};
}

std::vector<virtio::ConsolePort::Hooks> ExecSession::hooks() {
  return {{},
          {.sent = [this] { sent(0); }},
          {.sent = [this] { sent(1); }},
          {.observe = [this](std::span<const std::byte> said) { hear(said); }}};
}

void ExecSession::hear(std::span<const std::byte> said) {
  if (ending_) {
    return;
  }
  for (const auto byte : said) {
    const auto c = static_cast<char>(byte);
    if (c != '\n' && said_.size() < kLongestStatus) {
      said_ += c;
      continue;
    }
    ending_ = parse_exec_status(said_).value_or(Ending{.kind = Ending::Kind::ExecFailed,
                                                       .code = Ending::kCannotExec,
                                                       .detail = "the guest's init says what nobody understands"});
    // The guest gave all output to its queues before this. It is sent when they are empty.
    ports_->port(kOutputPort).transmit_kicked();
    ports_->port(kErrorPort).transmit_kicked();
    return;
  }
}

void ExecSession::sent(std::size_t stream) {
  sent_.at(stream) = ending_.has_value();
  if (std::ranges::all_of(sent_, std::identity{})) {
    stop_.request(*ending_);
  }
}

void ExecSession::amend(Ending& ending) {
  const bool by_itself = ending.kind == Ending::Kind::PowerOff || ending.kind == Ending::Kind::Reset;
  if (by_itself) {
    const auto* what = ending.kind == Ending::Kind::Reset ? "the guest was reset" : "the guest powered off";
    ending = {.kind = Ending::Kind::ExecFailed,
              .code = Ending::kExecLost,
              .vcpu = ending.vcpu,
              .detail = fmt::format("{} before the command ended", what)};
  }
}

std::optional<Ending> parse_exec_status(std::string_view text) {
  const auto space = text.find(' ');
  const auto word = text.substr(0, space);
  const auto digits = space == std::string_view::npos ? std::string_view{} : text.substr(space + 1);
  int number = -1;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc{} || end != digits.data() + digits.size() || number < 0) {
    return std::nullopt;
  }
  if (word == "exit" && number <= 255) {
    return Ending{.kind = Ending::Kind::GuestExit,
                  .code = number,
                  .detail = fmt::format("the command ended with status {}", number)};
  }
  if (word == "signal" && number >= 1 && number <= 64) {
    return Ending{.kind = Ending::Kind::GuestExit,
                  .code = 128 + number,
                  .signal = number,
                  .detail = fmt::format("{} killed the command", signal_name(number))};
  }
  return std::nullopt;
}

}  // namespace martlet
