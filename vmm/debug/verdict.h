#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "vmm/base/ending.h"

namespace martlet {

/// Exit codes that are Martlet's own, apart from the guest's.
enum class ExitCode : int {
  Success = 0,
  TimedOut = 124,
  HostError = 125,  ///< what `git bisect run` skips
  Crashed = 126,
  SignalBase = 128,
};

/// "power-off", "triple-fault", …: stable names for scripts.
[[nodiscard]] std::string_view name_of(Ending::Kind kind) noexcept;

/// The process's exit code after `ending`.
[[nodiscard]] int exit_code_of(const Ending& ending) noexcept;

/// One line for people, e.g. "triple fault on vCPU 1".
[[nodiscard]] std::string describe(const Ending& ending);

/// The exact verdict as one JSON object, newline at the end. The README lists its fields.
[[nodiscard]] std::string to_json(const Ending& ending, std::chrono::milliseconds elapsed);

}  // namespace martlet
