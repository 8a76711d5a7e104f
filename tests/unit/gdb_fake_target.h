#pragma once
// A machine for the gdb stub: guest memory with real page tables, vCPUs that are only registers. It does what the
// stub asks and stops when the test says so.

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/page_tables.h"
#include "vmm/debug/gdb/target.h"

namespace martlet {

class FakeTarget : public DebugTarget {
 public:
  // Virtual addresses, and where they lead to in 6 MiB of RAM.
  static constexpr std::uint64_t kText = 0xffff'ffff'9a20'0000;  // a kernel that KASLR has moved
  static constexpr std::uint64_t kTextPhys = 0x20'0000;
  static constexpr std::uint64_t kData = 0xffff'ffff'9b00'0000;  // two pages, not next to each other in RAM
  static constexpr std::uint64_t kDataPhys = 0x8000;
  static constexpr std::uint64_t kData2Phys = 0x5000;
  static constexpr std::uint64_t kDirect = 0xffff'8880'0000'0000;  // all of RAM, and more
  static constexpr std::uint64_t kUnmapped = 0xffff'ffff'c000'0000;
  static constexpr std::uint64_t kUserCode = 0x40'1000;
  static constexpr std::uint64_t kRoot = 0x1'0000;  // the user's next to it
  static constexpr std::uint64_t kRam = 6U << 20U;

  explicit FakeTarget(std::size_t cpus = 2) : cpus_(cpus) {
    tables_.map(kText, kTextPhys, 21);
    tables_.map(kData, kDataPhys, 12, PageTables::kPresent | PageTables::kWritable | PageTables::kNoExecute);
    tables_.map(kData + 0x1000, kData2Phys, 12, PageTables::kPresent | PageTables::kNoExecute);
    tables_.map(kDirect, 0, 30, PageTables::kPresent | PageTables::kWritable | PageTables::kNoExecute);
    tables_.map(kUserCode, 0x9000, 12, PageTables::kPresent | PageTables::kUser);
    tables_.put(kRoot + 0x1000, tables_.get(kRoot));  // the user's table maps the user's half only
    for (auto& cpu : cpus_) {
      cpu.sregs.cr0 = 0x8000'0001;
      cpu.sregs.cr3 = kRoot;
      cpu.sregs.cr4 = 0x20;
      cpu.sregs.efer = 0xd01;
      cpu.sregs.cs.selector = 0x10;
      cpu.regs.rip = kText;
      cpu.regs.rflags = 0x202;
      cpu.lstar = kText + 0x1000;
    }
  }

  // --- What the stub sees.
  void listen(DebugListener* listener) override { listener_ = listener; }
  [[nodiscard]] std::size_t cpu_count() const noexcept override { return cpus_.size(); }
  [[nodiscard]] const GuestMemory& memory() const noexcept override { return memory_; }
  [[nodiscard]] bool int3_exits() const noexcept override { return int3_exits_; }
  [[nodiscard]] bool at_rest() const noexcept override { return resting_; }
  [[nodiscard]] std::optional<CpuState> read_cpu(std::size_t cpu) override {
    ++reads_;
    return readable_ ? std::optional{cpus_[cpu]} : std::nullopt;
  }
  [[nodiscard]] bool write_cpu(std::size_t cpu, const CpuState& state, CpuParts parts) override {
    written_ = parts;
    cpus_[cpu] = state;
    return true;
  }
  void resume(std::span<const CpuOrder> orders) override {
    orders_.assign(orders.begin(), orders.end());
    resting_ = false;
    ++resumes_;
  }
  void interrupt() override { interrupted_ = true; }
  void reset() override { ++resets_; }
  void quit() override { ++quits_; }
  [[nodiscard]] std::optional<std::string> monitor(std::string_view command) override {
    return command == "info mtree" ? std::optional<std::string>{"0-ff ram\n"} : std::nullopt;
  }
  [[nodiscard]] std::string monitor_help() const override { return "info mtree  the memory map\n"; }

  // --- What the test does.
  void stop(const std::vector<StopEvent>& events) {
    resting_ = true;
    interrupted_ = false;
    if (listener_ != nullptr) {
      listener_->stopped(events);
    }
  }
  void stop_by_interrupt() { stop({{.kind = StopEvent::Kind::Interrupted}}); }
  void stop_by_step(std::size_t cpu, std::uint64_t pc) {
    cpus_[cpu].regs.rip = pc;
    stop({debug_event(cpu, 1, pc, 0x4000)});
  }
  static StopEvent debug_event(std::size_t cpu, std::uint32_t exception, std::uint64_t pc, std::uint64_t dr6) {
    return {.kind = StopEvent::Kind::Debug,
            .cpu = cpu,
            .exit = {.exception = exception, .pad = 0, .pc = pc, .dr6 = dr6, .dr7 = 0},
            .detail = {}};
  }
  void end(int code) {
    if (listener_ != nullptr) {
      listener_->ended(code);
    }
  }
  void put(std::uint64_t phys, std::string_view bytes) const {
    static_cast<void>(memory_.write(GuestAddr{phys}, std::as_bytes(std::span{bytes})));
  }
  [[nodiscard]] unsigned byte_at(std::uint64_t phys) const {
    return std::to_integer<unsigned>(*memory_.read<std::byte>(GuestAddr{phys}));
  }

  std::vector<CpuState> cpus_;
  std::vector<CpuOrder> orders_;
  CpuParts written_;
  DebugListener* listener_ = nullptr;
  bool resting_ = true;
  bool readable_ = true;
  bool int3_exits_ = true;
  bool interrupted_ = false;
  int reads_ = 0;
  int resumes_ = 0;
  int resets_ = 0;
  int quits_ = 0;

 private:
  std::vector<GuestRange> ranges_{GuestRange{GuestAddr{0}, kRam}};
  GuestMemory memory_{ranges_};

 public:
  PageTables tables_{memory_, kRoot};
};

}  // namespace martlet
