#include "vmm/debug/splat.h"

#include <algorithm>
#include <charconv>
#include <cstddef>

namespace martlet {
namespace {

using Kind = FindingKind;

/// How a report begins. The first that fits counts.
struct Phrase {
  Kind kind;
  std::string_view begins;
  std::string_view holds = {};  // somewhere after that
  Stamped stamped = Stamped::No;
};

constexpr Phrase kPhrases[] = {
    // mm/kasan/report.c, mm/kfence/report.c, mm/kmsan/report.c, kernel/kcsan/report.c, lib/ubsan.c
    {Kind::Kasan, "BUG: KASAN: "},
    {Kind::Kasan, "BUG: KFENCE: "},
    {Kind::Kasan, "BUG: KMSAN: "},
    {Kind::Kcsan, "BUG: KCSAN: "},
    {Kind::Ubsan, "UBSAN: "},
    // arch/x86/kernel/traps.c, arch/x86/mm/fault.c: "BUG: TASK stack guard page was hit at" since 5.16
    {Kind::StackOverflow, "BUG: ", "stack guard page was hit at"},
    {Kind::StackOverflow, "kernel stack overflow (", "[#"},
    {Kind::StackOverflow, "Insufficient stack space to handle exception!"},
    {Kind::Oops, "BUG: kernel NULL pointer dereference, address:"},
    {Kind::Oops, "BUG: unable to handle "},
    {Kind::Oops, "traps: PANIC: double fault"},
    {Kind::Oops, "PANIC: double fault, error_code:"},
    // kernel/watchdog.c, kernel/watchdog_hld.c (their prefix has changed), kernel/rcu/tree_stall.h, kernel/hung_task.c
    {Kind::SoftLockup, "watchdog: BUG: soft lockup - CPU#"},
    {Kind::SoftLockup, "BUG: soft lockup - CPU#"},
    {Kind::HardLockup, "NMI watchdog: Watchdog detected hard LOCKUP on cpu "},
    {Kind::HardLockup, "watchdog: Watchdog detected hard LOCKUP on cpu "},
    {Kind::HardLockup, "watchdog: CPU", "Watchdog detected hard LOCKUP on cpu "},
    {Kind::RcuStall, "rcu: INFO: ", " stall"},
    {Kind::RcuStall, "INFO: rcu_", " stall"},
    {Kind::HungTask, "INFO: task ", " blocked for more than "},
    {Kind::HungTask, "INFO: task ", " blocked in I/O wait for more than "},
    // kernel/sched/core.c
    {Kind::AtomicSleep, "BUG: sleeping function called from invalid context at "},
    {Kind::AtomicSleep, "BUG: scheduling while atomic: "},
    // mm/oom_kill.c
    {Kind::OomKill, "Out of memory: Kill"},
    {Kind::OomKill, "Memory cgroup out of memory: Kill"},
    // kernel/locking/lockdep.c
    {Kind::Lockdep, "WARNING: possible circular locking dependency detected"},
    {Kind::Lockdep, "WARNING: possible recursive locking detected"},
    {Kind::Lockdep, "WARNING: possible irq lock inversion dependency detected"},
    {Kind::Lockdep, "WARNING: inconsistent lock state"},
    {Kind::Lockdep, "WARNING: suspicious RCU usage"},
    {Kind::Lockdep, "WARNING: bad unlock balance detected!"},
    {Kind::Lockdep, "WARNING: bad contention detected!"},
    {Kind::Lockdep, "WARNING: held lock freed!"},
    {Kind::Lockdep, "WARNING: lock held when returning to user space!"},
    {Kind::Lockdep, "WARNING: Nested lock was not taken"},
    {Kind::Lockdep, "WARNING: ", "-unsafe lock order detected"},
    {Kind::Lockdep, "[ BUG: Invalid wait context ]"},
    {Kind::Lockdep, "BUG: Invalid wait context"},
    {Kind::Lockdep, "BUG: MAX_LOCK"},
    {Kind::Lockdep, "INFO: trying to register non-static key."},
    // lib/bug.c, kernel/panic.c; mm/slub.c: "BUG kmalloc-64 (Not tainted): Poison overwritten"
    {Kind::Bug, "kernel BUG at "},
    {Kind::Warning, "WARNING: CPU: ", " at "},
    {Kind::Bug, "BUG ", "): ", Stamped::Yes},
    {Kind::Bug, "BUG: ", {}, Stamped::Yes},
    {Kind::Warning, "WARNING: ", {}, Stamped::Yes},
};

/// What die() is called with (arch/x86/kernel/traps.c, arch/x86/mm/fault.c); since 6.11 all of it follows "Oops: ".
constexpr std::string_view kDeaths[] = {
    "Oops: ",
    "general protection fault",
    "invalid opcode: ",
    "divide error: ",
    "stack segment: ",
    "int3: ",
    "double fault: ",
    "bounds: ",
    "overflow: ",
    "alignment check: ",
    "invalid TSS: ",
    "segment not present: ",
    "kernel stack overflow (",
    "stack guard page: ",
    "control protection fault: ",
};

constexpr std::string_view kPanic = "Kernel panic - not syncing: ";

bool is_hex(char character) noexcept {
  return (character >= '0' && character <= '9') || (character >= 'a' && character <= 'f');
}
bool is_symbols(char character) noexcept {
  return (character >= '0' && character <= '9') || (character >= 'a' && character <= 'z') ||
         (character >= 'A' && character <= 'Z') || character == '_' || character == '.' || character == '$';
}
std::size_t count_hex(std::string_view text) noexcept {
  return static_cast<std::size_t>(std::ranges::find_if_not(text, is_hex) - text.begin());
}

}  // namespace

std::optional<SplatHead> splat_head(std::string_view line, Stamped stamped) noexcept {
  if (line.starts_with(kPanic)) {
    return SplatHead{.kind = Kind::Panic, .text = line.substr(kPanic.size())};
  }
  for (const auto& phrase : kPhrases) {
    if ((phrase.stamped == Stamped::No || stamped == Stamped::Yes) && line.starts_with(phrase.begins) &&
        line.find(phrase.holds, phrase.begins.size()) != std::string_view::npos) {
      return SplatHead{.kind = phrase.kind, .text = line};
    }
  }
  if (is_die_line(line)) {
    return SplatHead{.kind = Kind::Oops, .text = line};
  }
  return std::nullopt;
}

bool is_die_line(std::string_view line) noexcept {
  const auto number = line.find(" [#");
  if (number == std::string_view::npos ||
      std::ranges::none_of(kDeaths, [line](std::string_view death) { return line.starts_with(death); })) {
    return false;
  }
  const auto after = line.substr(number + 3);
  const auto digits = count_hex(after);
  constexpr std::size_t kCodeDigits = 4;  // ": 0002", at least
  const auto code = line.substr(0, number).rfind(": ");
  return digits != 0 && after.substr(digits).starts_with(']') && code != std::string_view::npos && code != 0 &&
         number - code - 2 >= kCodeDigits && count_hex(line.substr(code + 2)) == number - code - 2;
}

std::string_view symbol_in(std::string_view text) noexcept {
  constexpr std::string_view kOffset = "+0x";
  constexpr std::string_view kSize = "/0x";
  for (auto at = text.find(kOffset); at != std::string_view::npos; at = text.find(kOffset, at + 1)) {
    auto begin = at;
    while (begin > 0 && is_symbols(text[begin - 1])) {
      --begin;
    }
    auto end = at + kOffset.size();
    end += count_hex(text.substr(end));
    if (begin == at || !text.substr(end).starts_with(kSize)) {
      continue;
    }
    end += kSize.size();
    end += count_hex(text.substr(end));
    if (text.substr(end).starts_with(" [")) {  // the module; "[inline]" and the like do not come on these lines
      const auto bracket = text.find(']', end);
      end = bracket == std::string_view::npos ? end : bracket + 1;
    }
    return text.substr(begin, end - begin);
  }
  return {};
}

std::string_view kernel_rip(std::string_view line) noexcept {
  constexpr std::string_view kRip = "RIP: 0010:";
  if (!line.starts_with(kRip)) {
    return {};
  }
  line.remove_prefix(kRip.size());
  const auto symbol = symbol_in(line);
  return symbol.empty() ? line.substr(0, line.find(' ')) : symbol;
}

int cpu_in(std::string_view text) noexcept {
  for (const std::string_view word : {"CPU: ", "CPU#", "on cpu "}) {
    if (const auto at = text.find(word); at != std::string_view::npos) {
      int cpu = -1;
      const auto number = text.substr(at + word.size());
      std::from_chars(number.data(), number.data() + number.size(), cpu);
      return cpu < 0 ? -1 : cpu;
    }
  }
  return -1;
}

}  // namespace martlet
