#pragma once

#include <optional>
#include <string>
#include <variant>

#include "vmm/config.h"

namespace martlet {

/// martlet run
struct RunCommand {
  Config config;
  std::optional<std::string> result_file;
  std::optional<std::string> trace_file;
  bool stats = false;
};
/// martlet check
struct CheckCommand {};
/// --help, --version, completion: print this, exit 0
struct PrintCommand {
  std::string text;
};
using Command = std::variant<RunCommand, CheckCommand, PrintCommand>;

/// Throws HostError for a command line that makes no sense; the nearest option is suggested.
[[nodiscard]] Command parse_command_line(int argc, const char* const* argv);

}  // namespace martlet
