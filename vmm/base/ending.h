#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "vmm/base/fd.h"

namespace martlet {

/// How and why a VM ended.
struct Ending {
  enum class Kind {
    PowerOff,     ///< the guest switched itself off (ACPI S5)
    Reset,        ///< the guest asked for a reset
    GuestExit,    ///< the guest wrote its exit code, or the command of --exec ended, see `code`
    ExecFailed,   ///< the command of --exec could not be run, or the guest ended before it did, see `code`
    Panic,        ///< the guest's kernel said that it panicked
    TripleFault,  ///< the CPU gave up: a fault while delivering a double fault
    KvmError,     ///< KVM could not go on: internal error, failed entry, unknown exit
    Hang,         ///< its vCPUs do nothing that could ever come to an end
    Judged,       ///< its console has said enough for a verdict
    Timeout,      ///< --timeout ran out
    Signal,       ///< a second SIGINT or SIGTERM, see `code`
    Quit,         ///< Ctrl-A x
    HostError,    ///< the host let the running VM down
  };
  static constexpr int kCannotExec = 125;  ///< ExecFailed: as for all that `git bisect run` skips
  static constexpr int kExecLost = 126;    ///< … or the guest was lost

  Kind kind = Kind::PowerOff;
  int code = 0;          ///< GuestExit, ExecFailed: the exit code; Signal: the signal
  int signal = 0;        ///< GuestExit: what killed the command of --exec, 0 when nothing did
  int vcpu = -1;         ///< the vCPU that ended it, -1 when none did
  std::string detail{};  ///< one line for people: by which route, where
};

/// Through which anything ends the VM, from any thread. The first request wins.
class StopLine {
 public:
  StopLine() : event_{make_eventfd()} {}

  void request(Ending ending) noexcept;

  /// Cheap: the run loop asks after each exit.
  [[nodiscard]] bool requested() const noexcept { return requested_.load(std::memory_order_acquire); }
  [[nodiscard]] std::optional<Ending> ending() const;
  /// Readable once a request was made.
  [[nodiscard]] int fd() const noexcept { return event_.get(); }

 private:
  mutable std::mutex mutex_;
  std::optional<Ending> ending_;
  std::atomic<bool> requested_ = false;
  Fd event_;
};

}  // namespace martlet
