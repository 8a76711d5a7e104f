#include "vmm/debug/verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace martlet {
namespace {

using Json = nlohmann::ordered_json;

double seconds(std::chrono::milliseconds time) { return static_cast<double>(time.count()) / 1000; }

std::string_view name_of_ending(Ending::Kind kind) noexcept {
  switch (kind) {
    case Ending::Kind::PowerOff:
      return "power-off";
    case Ending::Kind::Reset:
      return "reset";
    case Ending::Kind::GuestExit:
      return "guest-exit";
    case Ending::Kind::ExecFailed:
      return "exec-failed";
    case Ending::Kind::Panic:
      return "panic";
    case Ending::Kind::TripleFault:
      return "triple-fault";
    case Ending::Kind::KvmError:
      return "kvm-error";
    case Ending::Kind::Hang:
      return "hang";
    case Ending::Kind::Timeout:
      return "timeout";
    case Ending::Kind::Signal:
      return "signal";
    case Ending::Kind::Quit:
    case Ending::Kind::Judged:  // the judge has another name for it
      return "quit";
    case Ending::Kind::HostError:
      break;
  }
  return "host-error";
}

int exit_code_of(const Ending& ending) noexcept {
  switch (ending.kind) {
    case Ending::Kind::PowerOff:
    case Ending::Kind::Reset:
    case Ending::Kind::Quit:
    case Ending::Kind::Judged:
      return static_cast<int>(ExitCode::Success);
    case Ending::Kind::GuestExit:
    case Ending::Kind::ExecFailed:
      return ending.code;
    case Ending::Kind::Panic:
    case Ending::Kind::TripleFault:
    case Ending::Kind::KvmError:
    case Ending::Kind::Hang:
      return static_cast<int>(ExitCode::Crashed);
    case Ending::Kind::Timeout:
      return static_cast<int>(ExitCode::TimedOut);
    case Ending::Kind::Signal:
      return static_cast<int>(ExitCode::SignalBase) + ending.code;
    case Ending::Kind::HostError:
      break;
  }
  return static_cast<int>(ExitCode::HostError);
}

std::string told(std::string_view name, const std::string& detail, const std::string& where, int vcpu,
                 std::chrono::milliseconds at) {
  auto text = fmt::format("{}{}{}", name, detail.empty() ? "" : ": ", detail);
  if (!where.empty() && detail.find(where) == std::string::npos) {
    text += ", at " + where;
  }
  text += vcpu >= 0 ? fmt::format(" (vCPU {}, ", vcpu) : " (";
  return text + fmt::format("{:.1f} s)", seconds(at));
}

Json to_json(const Finding& finding) {
  Json json{{"kind", name_of(finding.kind)}, {"text", finding.text}};
  if (!finding.where.empty()) {
    json["where"] = finding.where;
  }
  if (finding.cpu >= 0) {
    json["vcpu"] = finding.cpu;
  }
  json["console"] = name_of(finding.console);
  json["line"] = finding.line;
  json["seconds"] = seconds(finding.seen);
  return json;
}

Json tests_to_json(const std::vector<TestResult>& tests) {
  constexpr std::size_t kMostFailures = 100;
  Json json;
  for (const auto status : {TestStatus::Passed, TestStatus::Failed, TestStatus::Error, TestStatus::Skipped}) {
    json[std::string{name_of(status)}] = std::ranges::count(tests, status, &TestResult::status);
  }
  auto failures = Json::array();
  for (const auto& test : tests) {
    if ((test.status == TestStatus::Failed || test.status == TestStatus::Error) && failures.size() < kMostFailures) {
      failures.push_back(
          {{"suite", test.suite}, {"name", test.name}, {"status", name_of(test.status)}, {"reason", test.reason}});
    }
  }
  json["failures"] = std::move(failures);
  return json;
}

}  // namespace

Verdict verdict_of(const Ending& ending, std::chrono::milliseconds elapsed) {
  using Kind = Ending::Kind;
  return {.name = std::string{name_of_ending(ending.kind)},
          .exit_code = exit_code_of(ending),
          .detail = ending.detail,
          .signal = ending.signal,
          .vcpu = ending.vcpu,
          .at = elapsed,
          .elapsed = elapsed,
          .silent = ending.kind == Kind::PowerOff || ending.kind == Kind::Reset || ending.kind == Kind::GuestExit ||
                    ending.kind == Kind::Quit || ending.kind == Kind::Judged};
}

std::string describe(const Verdict& verdict) {
  return told(verdict.name, verdict.detail, verdict.where, verdict.vcpu, verdict.at);
}

std::string describe(const Finding& finding) {
  return told(name_of(finding.kind), finding.text, finding.where, finding.cpu, finding.seen);
}

std::string to_json(const Verdict& verdict, const std::vector<std::string>& command) {
  Json json;
  json["verdict"] = verdict.name;
  json["exit_code"] = verdict.exit_code;
  json["detail"] = verdict.detail;
  if (!verdict.where.empty()) {
    json["where"] = verdict.where;
  }
  if (verdict.signal != 0) {
    json["signal"] = verdict.signal;
  }
  if (verdict.vcpu >= 0) {
    json["vcpu"] = verdict.vcpu;
  }
  json["elapsed_ms"] = verdict.elapsed.count();
  json["findings"] = Json::array();
  for (const auto& finding : verdict.findings) {
    json["findings"].push_back(to_json(finding));
  }
  for (const auto& pattern : verdict.patterns) {
    json[pattern.kind == Verdict::Pattern::Kind::Expect ? "expect" : "forbid"].push_back(
        {{"pattern", pattern.text}, {"seen", pattern.seen ? Json(*pattern.seen) : Json(nullptr)}});
  }
  if (!verdict.tests.empty()) {
    json["tests"] = tests_to_json(verdict.tests);
  }
  json["command"] = command;
  // A guest's words may hold any byte: what is not UTF-8 is replaced, never thrown at.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

int bisect_code(const Verdict& verdict) noexcept {
  constexpr int kSkip = static_cast<int>(ExitCode::HostError);
  if (verdict.name == "signal") {  // somebody ended it before anything could be told
    return kSkip;
  }
  return verdict.exit_code >= 0 && verdict.exit_code <= kSkip ? verdict.exit_code : static_cast<int>(ExitCode::Failed);
}

}  // namespace martlet
