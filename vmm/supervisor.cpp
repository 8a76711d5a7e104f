#include "vmm/supervisor.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace martlet {
namespace {

constexpr std::chrono::seconds kSilence{5};   // after a failure: nothing more comes
constexpr std::chrono::seconds kWords{15};    // after a failure: what comes now only repeats it, as lockups do
constexpr std::chrono::seconds kPatience{2};  // with vCPUs that are to say what they do

}  // namespace

Supervisor::Supervisor(Machine& machine, Judge& judge, const RunCommand& command, Time start)
    : machine_{machine},
      judge_{judge},
      command_{command},
      start_{start},
      hang_watch_{machine},
      timeout_{machine.loop(), [this] { time_out(); }},
      failed_{machine.loop(), [this] { machine_.stop({.kind = Ending::Kind::Judged}); }} {
  if (command_.config.timeout) {
    timeout_.start_once(*command_.config.timeout);
  }
  if (command_.hang_timeout) {
    hang_watch_.watch(*command_.hang_timeout, [this](const MachineActivity& activity) {
      machine_.stop({.kind = Ending::Kind::Hang, .vcpu = activity.vcpu, .detail = activity.text});
    });
  }
}

std::chrono::milliseconds Supervisor::elapsed() const {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - start_);
}

void Supervisor::hear(ConsoleName console, std::span<const std::byte> output) {
  hang_watch_.heard();
  judge_.hear(console, output, elapsed());
  if (judge_.ending()) {
    machine_.stop(*judge_.ending());
  } else if (command_.ends_when_failed && judge_.failure() != nullptr) {
    const auto now = std::chrono::steady_clock::now();
    patient_until_ = patient_until_.value_or(now + kWords);
    failed_.start_once(std::clamp<Time::duration>(*patient_until_ - now, std::chrono::milliseconds{1}, kSilence));
  }
}

/// Says what the vCPUs were about, if they can be asked soon.
void Supervisor::time_out() {
  Ending ending{.kind = Ending::Kind::Timeout,
                .detail = fmt::format("still running after {} ms", command_.config.timeout->count())};
  if (timed_out_) {
    machine_.stop(std::move(ending));
    return;
  }
  timed_out_ = true;
  timeout_.start_once(kPatience);
  hang_watch_.look([this, ending](const MachineActivity& activity) mutable {
    ending.vcpu = activity.vcpu;
    ending.detail += "; " + activity.text;
    machine_.stop(std::move(ending));
  });
}

}  // namespace martlet
