#pragma once
// A machine that runs, for a real gdb: vCPUs that know four instructions, executed by the event loop.

#include <cstdint>
#include <cstring>
#include <vector>

#include "tests/unit/gdb_fake_target.h"
#include "vmm/base/event_loop.h"

namespace martlet {

class ToyMachine final : public FakeTarget {
 public:
  explicit ToyMachine(EventLoop& loop) : turn_{loop, [this] { run(); }} {
    put(kTextPhys, kProgram);
    for (auto& cpu : cpus_) {
      cpu.regs.rsp = kData + 0xff0;
    }
  }

  void resume(std::span<const CpuOrder> orders) override {
    FakeTarget::resume(orders);
    turn_.start_once(std::chrono::nanoseconds{1});
  }

  // The guest: counts up for ever. `inc dword [kData]` is seven bytes.
  static constexpr std::string_view kProgram{"\x90\x90\xff\x04\x25\x00\x00\x00\x9b\x90\xeb\xf4", 12};
  static constexpr std::uint64_t kIncrement = kText + 2;
  static constexpr std::uint64_t kAfter = kText + 9;

 private:
  static constexpr std::uint64_t kStepBit = 0x4000;  // DR6.BS

  /// Some instructions of every vCPU that runs, then whatever else the loop has to do.
  void run() {
    if (resting_) {
      return;
    }
    std::vector<StopEvent> events;
    for (int i = 0; i < 100 && events.empty(); ++i) {
      for (std::size_t cpu = 0; cpu < cpus_.size(); ++cpu) {
        if (orders_[cpu].run && !step(cpu, events)) {
          end(126);
          return;
        }
      }
    }
    if (interrupted_) {
      events.push_back({.kind = StopEvent::Kind::Interrupted});
    }
    if (events.empty()) {
      turn_.start_once(std::chrono::microseconds{10});
    } else {
      stop(events);
    }
  }

  /// One instruction; false when it is none that is known.
  bool step(std::size_t cpu, std::vector<StopEvent>& events) {
    auto& regs = cpus_[cpu].regs;
    auto& debug = orders_[cpu].debug;
    if (debug.inject == Injection::None) {
      if (const auto hit = debug_hits(debug, regs.rip, 0)) {
        events.push_back(debug_event(cpu, 1, regs.rip, hit));
        return true;
      }
    }
    std::uint64_t hit = 0;
    switch (byte_at(kTextPhys + (regs.rip - kText))) {
      case 0x90:
        ++regs.rip;
        break;
      case 0xcc:
        if (debug.int3_exits && debug.inject != Injection::Breakpoint) {
          events.push_back(debug_event(cpu, 3, regs.rip, 0));
          return true;
        }
        ++regs.rip;  // the guest's own handler would do no more
        break;
      case 0xff:
        put_count(count() + 1);
        regs.rip += 7;
        hit = debug_hits(debug, kData, 1);
        break;
      case 0xeb:
        regs.rip = kText;
        break;
      default:
        return false;
    }
    debug.inject = Injection::None;
    hit |= debug.single_step ? kStepBit : 0;
    if (hit != 0) {
      events.push_back(debug_event(cpu, 1, regs.rip, hit));
    }
    return true;
  }

  /// The bits of DR6 for an access to `addr`: execution (0), or a write (1).
  static std::uint64_t debug_hits(const GuestDebug& debug, std::uint64_t addr, unsigned write) {
    std::uint64_t hits = 0;
    for (unsigned i = 0; i < 4; ++i) {
      const bool enabled = (debug.dr7 >> (2 * i) & 3U) != 0;
      const auto condition = debug.dr7 >> (16 + 4 * i) & 3U;
      if (enabled && debug.dr[i] == addr && (condition != 0) == (write != 0)) {
        hits |= std::uint64_t{1} << i;
      }
    }
    return hits;
  }
  [[nodiscard]] std::uint32_t count() const { return *memory().read<std::uint32_t>(GuestAddr{kDataPhys}); }
  void put_count(std::uint32_t count) const { static_cast<void>(memory().write(GuestAddr{kDataPhys}, count)); }

  Timer turn_;
};

}  // namespace martlet
