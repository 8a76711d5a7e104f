#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/debug/gdb/debug_registers.h"
#include "vmm/debug/gdb/patches.h"
#include "vmm/debug/gdb/target.h"
#include "vmm/debug/gdb/target_memory.h"

namespace martlet::gdb {

/// What a client asks of a vCPU when it lets the machine go on.
struct Action {
  enum class Kind : std::uint8_t { Stay, Continue, Step };
  Kind kind = Kind::Continue;
  std::uint64_t start = 0;  ///< Step: again and again while the pc is in [start, end)
  std::uint64_t end = 0;
};

/// Lets a machine's vCPUs run and step, finds out why they stopped, and keeps the breakpoints.
///
/// An int3 that is the guest's own goes back to the guest, and it never shows. A breakpoint that was reported does
/// not hold the vCPU that it stopped: that one steps over it first, alone, with interrupts blocked.
class RunControl final : public DebugListener {
 public:
  struct Client {
    std::function<void()> stopped;                   ///< the machine stopped: see stop_reply()
    std::function<void(std::string_view text)> say;  ///< for people; before `stopped`
  };

  /// `target` outlives this.
  RunControl(DebugTarget& target, Client client);
  ~RunControl() override;

  /// A client is there: stops the machine. `stopped` follows unless at_rest() is true at once.
  void attach();
  /// It is gone: takes all breakpoints away and lets the machine go on.
  void leave();

  [[nodiscard]] bool at_rest() const noexcept { return state_ == State::Resting || state_ == State::Ended; }
  [[nodiscard]] bool ended() const noexcept { return state_ == State::Ended; }
  /// Why it stopped, as gdb is told: "T05thread:1;" …
  [[nodiscard]] const std::string& stop_reply() const noexcept { return stop_reply_; }
  [[nodiscard]] std::size_t stopped_cpu() const noexcept { return stopped_cpu_; }

  /// One action for each vCPU. At rest only.
  void resume(std::vector<Action> actions);
  /// Asks for a stop; nothing at rest.
  void interrupt();

  /// Null when it cannot be read. At rest only; good until it is written or the machine goes on.
  [[nodiscard]] const CpuState* read(std::size_t cpu);
  [[nodiscard]] bool write(std::size_t cpu, const CpuState& state, CpuParts parts);
  [[nodiscard]] TargetMemory& memory() noexcept { return memory_; }

  /// What kept it from being set, for people; nothing when it is. Addresses are `cpu`'s.
  [[nodiscard]] std::optional<std::string> insert(const Breakpoint& breakpoint, std::size_t cpu);
  void remove(const Breakpoint& breakpoint);

  /// Whether interrupts wait while a vCPU steps (gdb's `maintenance packet Qqemu.sstep=`).
  void block_interrupts(bool block) noexcept { block_interrupts_ = block; }
  /// The client knows the stop reasons swbreak and hwbreak.
  void name_breakpoints(bool name) noexcept { name_breakpoints_ = name; }

  void stopped(std::span<const StopEvent> events) override;
  void ended(int exit_code) override;

 private:
  enum class State : std::uint8_t { Resting, Running, Ended };
  /// The higher, the more worth telling.
  enum class Rank : std::uint8_t { Step, Watch, Breakpoint, Fault };
  struct Report {
    Rank rank;
    std::size_t cpu;
    std::string reply;
    std::optional<Breakpoint> watch{};  ///< what it hit, of data
    std::optional<std::uint64_t> pc{};  ///< where it hit one of code
  };
  struct Cpu {
    std::optional<CpuState> state{};  ///< what was read since the machine stopped
    Action action{};
    Injection inject = Injection::None;
    std::optional<std::uint64_t> passed{};  ///< the breakpoint at this pc does not stop it again
    std::optional<Report> unreported{};     ///< a watchpoint that it hit while another vCPU's stop was told
  };

  void go();
  [[nodiscard]] bool step_over();
  [[nodiscard]] GuestDebug debug_of(std::size_t cpu, bool steps, std::optional<std::uint64_t> except) const;
  [[nodiscard]] bool breakpoint_at(const CpuState& cpu, std::uint64_t pc) const;
  void forget_states();

  [[nodiscard]] std::optional<Report> judge(const StopEvent& event, bool stepped_over);
  [[nodiscard]] std::optional<Report> judge_int3(const StopEvent& event);
  [[nodiscard]] std::optional<Report> judge_debug(const StopEvent& event, bool stepped_over);
  [[nodiscard]] std::string reply(unsigned signal, std::string_view reason, std::size_t cpu) const;
  void report(const Report& report);
  void let_go();

  DebugTarget& target_;
  Client client_;
  Patches patches_;
  TargetMemory memory_;
  DebugRegisters debug_registers_;
  static constexpr std::size_t kMostSoftware = 4096;
  std::map<std::uint64_t, GuestAddr> software_;  // virtual address of each int3 → where it was put
  std::vector<Cpu> cpus_;

  State state_ = State::Resting;
  bool attached_ = false;
  bool leaving_ = false;  // the machine is to be let go as soon as it stops
  bool interrupt_asked_ = false;
  bool block_interrupts_ = true;
  bool name_breakpoints_ = false;
  struct StepOver {
    std::size_t cpu;
    std::uint64_t pc;
    std::optional<GuestAddr> lifted;
  };
  std::optional<StepOver> stepping_over_;
  std::string stop_reply_;
  std::size_t stopped_cpu_ = 0;
};

}  // namespace martlet::gdb
