#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/base/ending.h"
#include "vmm/debug/console_lines.h"
#include "vmm/debug/console_patterns.h"
#include "vmm/debug/dmesg.h"
#include "vmm/debug/finding.h"
#include "vmm/debug/ktap.h"
#include "vmm/debug/splat_watch.h"
#include "vmm/debug/verdict.h"

namespace martlet {

/// Reads along on a guest's consoles and says in the end what to make of it. Knows the time only by what it is told,
/// always since the start.
class Judge {
 public:
  struct Rules {
    std::vector<std::string> expect{};
    std::vector<std::string> forbid{};
    Severity fail_on = Severity::Oops;
    bool awaits_end = false;  ///< what was expected is no success yet: a command's status is still to come
  };

  /// Throws HostError for a pattern that is none.
  explicit Judge(const Rules& rules);

  void hear(ConsoleName console, std::span<const std::byte> output, std::chrono::milliseconds now);

  /// The kernel's log out of its memory, of a VM that has ended: its tail is heard as a console's output is.
  void hear_log(std::span<const LogRecord> log, std::chrono::milliseconds now);
  /// A console said why the VM ended by itself: it failed, or it was asked to.
  [[nodiscard]] bool knows_why() const noexcept { return reboots_ || failure() != nullptr; }

  /// How the VM is to be ended, once the consoles have said enough: all that was expected, something forbidden, or a
  /// panic to its end.
  [[nodiscard]] const std::optional<Ending>& ending() const noexcept { return ending_; }
  /// The first finding by which the run has failed.
  [[nodiscard]] const Finding* failure() const noexcept;

  /// The VM has ended. To be called once.
  [[nodiscard]] Verdict conclude(const Ending& ending, std::chrono::milliseconds elapsed);

 private:
  struct Console {
    explicit Console(ConsoleName name) : splats{name} {}
    ConsoleLines lines;
    SplatWatch splats;
    KtapParser ktap;
  };

  enum class LineEnd { There, Missing };

  void hear_line(Console& console, std::string_view line, LineEnd end, std::chrono::milliseconds now);
  void blame(const Finding& finding, const Ending& ending, Verdict& verdict) const;
  [[nodiscard]] std::string missing() const;

  Severity fail_on_;
  bool awaits_end_;
  ConsolePatterns expect_;
  ConsolePatterns forbid_;
  std::optional<std::size_t> forbidden_;  // the first of `forbid_` that was seen
  std::array<Console, 2> consoles_;
  std::vector<Finding> findings_;
  std::optional<Ending> ending_;
  bool reboots_ = false;  // the kernel said so
};

}  // namespace martlet
