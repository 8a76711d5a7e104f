#include "vmm/debug/verdict.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace martlet {

std::string_view name_of(Ending::Kind kind) noexcept {
  switch (kind) {
    case Ending::Kind::PowerOff:
      return "power-off";
    case Ending::Kind::Reset:
      return "reset";
    case Ending::Kind::GuestExit:
      return "guest-exit";
    case Ending::Kind::Panic:
      return "panic";
    case Ending::Kind::TripleFault:
      return "triple-fault";
    case Ending::Kind::KvmError:
      return "kvm-error";
    case Ending::Kind::Timeout:
      return "timeout";
    case Ending::Kind::Signal:
      return "signal";
    case Ending::Kind::Quit:
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
      return static_cast<int>(ExitCode::Success);
    case Ending::Kind::GuestExit:
      return ending.code;
    case Ending::Kind::Panic:
    case Ending::Kind::TripleFault:
    case Ending::Kind::KvmError:
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

std::string describe(const Ending& ending) {
  std::string text{name_of(ending.kind)};
  if (!ending.detail.empty()) {
    text += ": " + ending.detail;
  }
  if (ending.vcpu >= 0) {
    text += fmt::format(" (vCPU {})", ending.vcpu);
  }
  return text;
}

std::string to_json(const Ending& ending, std::chrono::milliseconds elapsed) {
  nlohmann::ordered_json verdict;
  verdict["verdict"] = name_of(ending.kind);
  verdict["exit_code"] = exit_code_of(ending);
  verdict["detail"] = ending.detail;
  if (ending.vcpu >= 0) {
    verdict["vcpu"] = ending.vcpu;
  }
  verdict["elapsed_ms"] = elapsed.count();
  // A guest's panic message may hold any byte: what is not UTF-8 is replaced, never thrown at.
  return verdict.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace martlet
