#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "vmm/bundle_options.h"
#include "vmm/config.h"
#include "vmm/debug/judge.h"
#include "vmm/net_command.h"

namespace martlet {

/// What the exit code is made for.
enum class ExitStyle { Guest, Bisect };

/// Where gdb is waited for when nobody says where.
inline constexpr const char* kGdbDefault = "1234";

/// martlet run
struct RunCommand {
  Config config;
  std::vector<std::string> command_line{};
  Judge::Rules rules{};
  bool ends_when_failed = false;  ///< --fail-on was given: nobody waits for more once the run has failed
  std::optional<std::chrono::milliseconds> hang_timeout{};
  ExitStyle exit_style = ExitStyle::Guest;
  std::optional<std::string> junit_file{};
  std::optional<std::string> result_file;
  std::optional<std::string> trace_file;
  bool stats = false;
  std::optional<std::string> gdb;  ///< where to listen, as gdb::Server::Options has it
  bool gdb_wait = false;
  std::optional<BundleOptions> bundle;  ///< for what can be known of a failure
  std::string name;                     ///< what others may call it; "" without
  std::string vmlinux;                  ///< the kernel's ELF file or System.map, for its symbols; "" without
};
/// martlet check
struct CheckCommand {};
/// --help, --version, completion: print this, exit 0
struct PrintCommand {
  std::string text;
};
/// martlet dump
struct DumpCommand {
  std::string vm;  ///< a PID or a name
  BundleOptions where{};
};
using Command = std::variant<RunCommand, DumpCommand, CheckCommand, NetCommand, PrintCommand>;

/// Throws HostError for a command line that makes no sense; the nearest option is suggested.
[[nodiscard]] Command parse_command_line(int argc, const char* const* argv);

}  // namespace martlet
