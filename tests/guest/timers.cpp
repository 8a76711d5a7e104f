// Ten interrupts from each timer, all taken out of HLT: the PIT by the IO-APIC pin that the MADT names,
// the local APIC's timer (one-shot and periodic), the TSC deadline where CPUID offers it.
#include "acpi.h"
#include "apic.h"
#include "check.h"
#include "idt.h"
#include "pvh.h"

namespace {

using namespace guest;

constexpr int kTicks = 10;
constexpr u8 kPitVector = 0x20;
constexpr u8 kApicVector = 0x30;

volatile int pit_ticks = 0;
volatile int apic_ticks = 0;

void on_pit(Frame& /*frame*/) {
  pit_ticks = pit_ticks + 1;
  LocalApic::end_of_interrupt();
}
void on_apic_timer(Frame& /*frame*/) {
  apic_ticks = apic_ticks + 1;
  LocalApic::end_of_interrupt();
}

void pit(const HvmStartInfo& info) {
  constexpr u16 kCounter0 = 0x40;
  constexpr u16 kCommand = 0x43;
  constexpr u8 kRateGenerator = 0x34;  // counter 0, low then high byte, mode 2
  constexpr u8 kOneShot = 0x30;        // mode 0
  constexpr u16 kOneMillisecond = 1193;
  const u32 gsi = gsi_of_isa(info, 0);
  const IoApic io_apic{io_apic_address(info)};
  io_apic.route(gsi, kPitVector, static_cast<u8>(LocalApic::id()));
  out8(kCommand, kRateGenerator);
  out8(kCounter0, kOneMillisecond & 0xff);
  out8(kCounter0, kOneMillisecond >> 8);
  while (pit_ticks < kTicks) {
    wait_for_interrupt();
  }
  io_apic.mask(gsi);
  out8(kCommand, kOneShot);
  print("PIT ", kTicks, "\n");
}

void apic_timer(u32 mode, const char* name) {
  constexpr u32 kCount = 1'000'000;  // 1 ms where a tick is 1 ns
  apic_ticks = 0;
  LocalApic::write(kApicTimerDivide, kDivideByOne);
  LocalApic::write(kApicTimer, kApicVector | mode);
  for (int i = 0; i < kTicks; ++i) {
    if (i == 0 || mode != kTimerPeriodic) {
      LocalApic::write(kApicTimerInitial, kCount);
    }
    while (apic_ticks <= i) {
      wait_for_interrupt();
    }
  }
  LocalApic::write(kApicTimerInitial, 0);
  LocalApic::write(kApicTimer, kLvtMasked);
  print(name, " ", kTicks, "\n");
}

void tsc_deadline() {
  if ((cpuid(1).ecx & (1U << 24U)) == 0) {
    print("TSC deadline: not offered\n");
    return;
  }
  constexpr u64 kDistance = 1'000'000;
  apic_ticks = 0;
  LocalApic::write(kApicTimer, kApicVector | kTimerTscDeadline);
  // A memory-mapped write may be overtaken by WRMSR (Intel SDM vol. 3A, section 11.5.4.1); without SSE2's
  // MFENCE a locked instruction keeps them in order.
  asm volatile("lock orl $0, (%%rsp)" : : : "cc", "memory");
  for (int i = 0; i < kTicks; ++i) {
    const u64 deadline = read_tsc() + kDistance;
    write_msr(kMsrTscDeadline, deadline);
    while (apic_ticks <= i) {
      wait_for_interrupt();
    }
    check(read_tsc() >= deadline, "the TSC deadline's interrupt comes after it");
    check_equal(read_msr(kMsrTscDeadline), 0, "the TSC deadline afterwards");
  }
  LocalApic::write(kApicTimer, kLvtMasked);
  print("TSC deadline ", kTicks, "\n");
}

}  // namespace

int guest_main(const HvmStartInfo& info) {
  silence_pics();
  LocalApic::enable(false);
  set_handler(kPitVector, on_pit);
  set_handler(kApicVector, on_apic_timer);
  pit(info);
  apic_timer(0, "APIC one-shot");
  apic_timer(kTimerPeriodic, "APIC periodic");
  tsc_deadline();
  return verdict();
}
