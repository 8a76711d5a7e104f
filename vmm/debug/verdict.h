#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/ending.h"
#include "vmm/debug/finding.h"
#include "vmm/debug/ktap.h"

namespace martlet {

/// Exit codes that are Martlet's own, apart from the guest's.
enum class ExitCode : int {
  Success = 0,
  Failed = 1,  ///< the kernel lives, but what was tested failed
  TimedOut = 124,
  HostError = 125,  ///< what `git bisect run` skips
  Crashed = 126,
  SignalBase = 128,
};

/// What a run came to, and why.
struct Verdict {
  /// What --expect and --forbid said, and the line in which it was seen.
  struct Pattern {
    enum class Kind { Expect, Forbid };
    Kind kind = Kind::Expect;
    std::string text{};
    std::optional<std::string> seen{};
  };

  std::string name{};  ///< "power-off", "triple-fault", "oops", …: stable, for scripts
  int exit_code = 0;
  std::string detail{};                 ///< one line for people, without what follows here
  std::string where{};                  ///< the kernel's function, if that is known
  int signal = 0;                       ///< which one killed the command of --exec, 0 when none did
  int vcpu = -1;                        ///< the one concerned, -1 when none is
  std::chrono::milliseconds at{};       ///< since the start: when it was settled
  std::chrono::milliseconds elapsed{};  ///< since the start: when the VM had ended
  std::vector<Finding> findings{};
  std::vector<Pattern> patterns{};
  std::vector<TestResult> tests{};
  bool silent = false;  ///< an end that its user expects: no words needed
};

/// What can be said by how the VM ended alone.
[[nodiscard]] Verdict verdict_of(const Ending& ending, std::chrono::milliseconds elapsed);

/// One line for people, e.g. "triple-fault (vCPU 1, 0.8 s)".
[[nodiscard]] std::string describe(const Verdict& verdict);

[[nodiscard]] std::string describe(const Finding& finding);

/// The verdict as one JSON object, newline at the end. docs/ci.md lists its fields.
[[nodiscard]] std::string to_json(const Verdict& verdict, const std::vector<std::string>& command);

/// The exit code as `git bisect run` takes it: 0 good, 1 to 124 bad, 125 skip, and nothing else.
[[nodiscard]] int bisect_code(const Verdict& verdict) noexcept;

}  // namespace martlet
