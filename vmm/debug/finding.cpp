#include "vmm/debug/finding.h"

namespace martlet {

std::string_view name_of(FindingKind kind) noexcept {
  switch (kind) {
    case FindingKind::Warning:
      return "warning";
    case FindingKind::Ubsan:
      return "ubsan";
    case FindingKind::Kcsan:
      return "kcsan";
    case FindingKind::Lockdep:
      return "lockdep";
    case FindingKind::RcuStall:
      return "rcu-stall";
    case FindingKind::HungTask:
      return "hung-task";
    case FindingKind::OomKill:
      return "oom-kill";
    case FindingKind::Bug:
      return "bug";
    case FindingKind::Oops:
      return "oops";
    case FindingKind::Kasan:
      return "kasan";
    case FindingKind::StackOverflow:
      return "stack-overflow";
    case FindingKind::AtomicSleep:
      return "atomic-sleep";
    case FindingKind::SoftLockup:
      return "soft-lockup";
    case FindingKind::HardLockup:
      return "hard-lockup";
    case FindingKind::Panic:
      break;
  }
  return "panic";
}

Severity severity_of(FindingKind kind) noexcept {
  return kind == FindingKind::Panic ? Severity::Panic : kind < FindingKind::Bug ? Severity::Warn : Severity::Oops;
}

std::string_view name_of(ConsoleName console) noexcept {
  return console == ConsoleName::Serial ? "serial" : console == ConsoleName::Hvc ? "hvc0" : "dmesg";
}

}  // namespace martlet
