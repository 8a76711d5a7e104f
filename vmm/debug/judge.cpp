#include "vmm/debug/judge.h"

#include <fmt/format.h>

#include <algorithm>

#include "vmm/debug/printk.h"

namespace martlet {

Judge::Judge(const Rules& rules)
    : fail_on_{rules.fail_on},
      awaits_end_{rules.awaits_end},
      expect_{rules.expect, "--expect"},
      forbid_{rules.forbid, "--forbid"},
      consoles_{Console{ConsoleName::Serial}, Console{ConsoleName::Hvc}} {}

void Judge::hear(ConsoleName name, std::span<const std::byte> output, std::chrono::milliseconds now) {
  auto& console = consoles_.at(static_cast<std::size_t>(name));
  console.lines.feed(output, [&](std::string_view line) { hear_line(console, line, LineEnd::There, now); });
  if (!expect_.all().empty() && !ending_) {  // a prompt has no end
    static_cast<void>(expect_.look_at(console.lines.unfinished()));
  }
  if (ending_) {
    return;
  }
  const bool content = !awaits_end_ && !expect_.all().empty() && expect_.all_seen();
  if (!forbidden_ && console.splats.panic_is_over()) {  // without a reset to follow: panic=0
    ending_ = {.kind = Ending::Kind::Panic};
  } else if (forbidden_ || content) {
    ending_ = {.kind = Ending::Kind::Judged};
  }
}

void Judge::hear_line(Console& console, std::string_view line, LineEnd end, std::chrono::milliseconds now) {
  static_cast<void>(expect_.look_at(line));
  if (const auto forbidden = forbid_.look_at(line); forbidden && !forbidden_) {
    forbidden_ = forbidden;
  }
  const auto parts = take_apart(line);
  console.splats.hear(parts, console.lines.number(), now, findings_);
  reboots_ = reboots_ || (parts.stamp ? parts.text : parts.before).starts_with("reboot: ");  // kernel/reboot.c
  if (end == LineEnd::Missing) {  // a result that is cut is none
    return;
  }
  if (parts.stamp) {
    console.ktap.hear(parts.text, KtapParser::Source::Kernel);
  }
  if (!parts.begins()) {
    console.ktap.hear(parts.before, KtapParser::Source::Program);
  }
}

void Judge::hear_log(std::span<const LogRecord> log, std::chrono::milliseconds now) {
  constexpr std::size_t kTail = 2000;  // a panic's report has some 100
  ConsoleLines lines;
  SplatWatch splats{ConsoleName::Dmesg};
  for (const auto& record : log.last(std::min(log.size(), kTail))) {
    const auto hear = [&](std::string_view line) {
      splats.hear({.text = line, .stamp = record.time_ns / 1000}, lines.number(), now, findings_);
    };
    lines.feed(std::as_bytes(std::span{record.text}), hear);
    lines.feed(std::as_bytes(std::span{"\n", 1}), hear);
  }
}

const Finding* Judge::failure() const noexcept {
  const auto found =
      std::ranges::find_if(findings_, [this](const Finding& finding) { return severity_of(finding.kind) >= fail_on_; });
  return found == findings_.end() ? nullptr : &*found;
}

/// The kernel's own first words say best what became of it. What followed (a panic, a reset) is told beside.
void Judge::blame(const Finding& finding, const Ending& ending, Verdict& verdict) const {
  constexpr std::chrono::milliseconds kConsequence{2000};
  verdict.name = name_of(finding.kind);
  verdict.exit_code = static_cast<int>(ExitCode::Crashed);
  verdict.detail = finding.text;
  verdict.where = finding.where;
  verdict.vcpu = finding.cpu;
  verdict.at = finding.seen;
  verdict.silent = false;
  const auto index = &finding - findings_.data();
  const auto panic = std::ranges::find(findings_, FindingKind::Panic, &Finding::kind);
  if (finding.kind != FindingKind::Panic && panic != findings_.end()) {
    verdict.detail += "; then panic: " + panic->text;
  } else if (index > 0 && finding.seen - findings_[static_cast<std::size_t>(index) - 1].seen < kConsequence) {
    const auto& cause = findings_[static_cast<std::size_t>(index) - 1];
    verdict.detail += fmt::format("; after {}: {}", name_of(cause.kind), cause.text);
    if (verdict.where.empty()) {
      verdict.where = cause.where;
    }
  }
  if (ending.kind == Ending::Kind::TripleFault || ending.kind == Ending::Kind::KvmError ||
      ending.kind == Ending::Kind::Hang) {
    verdict.detail += fmt::format("; then {}", verdict_of(ending, {}).name);
  }
}

std::string Judge::missing() const {
  std::string text;
  for (const auto& pattern : expect_.all()) {
    if (!pattern.seen) {
      text += fmt::format("{}'{}'", text.empty() ? "expected output missing: " : ", ", pattern.text);
    }
  }
  return text;
}

Verdict Judge::conclude(const Ending& ending, std::chrono::milliseconds elapsed) {
  using Kind = Ending::Kind;
  for (auto& console : consoles_) {
    hear_line(console, console.lines.unfinished(), LineEnd::Missing, elapsed);
  }
  auto verdict = verdict_of(ending, elapsed);
  const auto* const failure = this->failure();
  const bool crashed = failure != nullptr || verdict.exit_code == static_cast<int>(ExitCode::Crashed);
  for (auto& console : consoles_) {
    console.ktap.finish(failure != nullptr ? failure->text : crashed ? verdict.name : "");
  }
  // The same results may come on both consoles.
  auto& ktap = consoles_[consoles_[0].ktap.started() ? 0 : 1].ktap;
  const auto fail = [&](std::string_view name, std::string detail) {
    verdict.name = name;
    verdict.exit_code = static_cast<int>(ExitCode::Failed);
    verdict.detail = std::move(detail);
    verdict.silent = false;
  };
  const auto lacking = missing();
  const bool ended_well = verdict.exit_code == static_cast<int>(ExitCode::Success);
  if (ending.kind == Kind::HostError || ending.kind == Kind::Signal) {
    // They are about us, not about the guest.
  } else if (failure != nullptr) {
    blame(*failure, ending, verdict);
  } else if (forbidden_ && ended_well) {
    const auto& pattern = forbid_.all()[*forbidden_];
    fail("forbidden-output", fmt::format("'{}' matched: {}", pattern.text, *pattern.seen));
  } else if (ended_well && ktap.failed()) {
    fail("tests-failed", fmt::format("{} of {} tests failed, {} errors", ktap.count(TestStatus::Failed),
                                     ktap.results().size(), ktap.count(TestStatus::Error)));
  } else if (ended_well && !lacking.empty()) {
    fail("missing-output", fmt::format("{}: {}", verdict.name, lacking));
  } else if (!lacking.empty()) {
    verdict.detail += (verdict.detail.empty() ? "" : "; ") + lacking;
  } else if (ended_well && !expect_.all().empty()) {
    verdict.name = "expected-output";
    verdict.detail = *expect_.all().back().seen;
  }
  verdict.findings = findings_;
  verdict.tests = ktap.results();
  for (const auto& pattern : expect_.all()) {
    verdict.patterns.push_back({.kind = Verdict::Pattern::Kind::Expect, .text = pattern.text, .seen = pattern.seen});
  }
  for (const auto& pattern : forbid_.all()) {
    verdict.patterns.push_back({.kind = Verdict::Pattern::Kind::Forbid, .text = pattern.text, .seen = pattern.seen});
  }
  return verdict;
}

}  // namespace martlet
