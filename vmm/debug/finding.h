#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace martlet {

/// What a kernel says of itself on its console.
enum class FindingKind {
  // The kernel reports and goes on as it was.
  Warning,
  Ubsan,
  Kcsan,
  Lockdep,
  RcuStall,
  HungTask,
  OomKill,
  // It is broken, whether or not it goes on.
  Bug,
  Oops,
  Kasan,  ///< KFENCE and KMSAN, too
  StackOverflow,
  AtomicSleep,
  SoftLockup,
  HardLockup,
  // It gave up.
  Panic,
};

/// How bad a finding is, and from where on a run has failed (--fail-on).
enum class Severity { Warn, Oops, Panic };

/// "warning", "soft-lockup", …: stable names for scripts.
[[nodiscard]] std::string_view name_of(FindingKind kind) noexcept;
[[nodiscard]] Severity severity_of(FindingKind kind) noexcept;

enum class ConsoleName : std::uint8_t {
  Serial,
  Hvc,
  Dmesg,  ///< none: read out of the kernel's memory
};
[[nodiscard]] std::string_view name_of(ConsoleName console) noexcept;

struct Finding {
  FindingKind kind = FindingKind::Warning;
  std::string text{};   ///< the kernel's words, without its time stamp; a panic's without "Kernel panic - …"
  std::string where{};  ///< "function+0x12/0x20 [module]", when the kernel told
  int cpu = -1;         ///< the guest's number for it, when the kernel told
  ConsoleName console = ConsoleName::Serial;
  std::uint64_t line = 0;                ///< of that console, from 1
  std::chrono::milliseconds seen{};      ///< since the start
  std::optional<std::uint64_t> stamp{};  ///< the kernel's, in microseconds
};

}  // namespace martlet
