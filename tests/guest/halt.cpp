// Sleeps in HLT. until=timer: the local APIC's timer wakes it, exit code 7. until=never: interrupts on, and
// none comes. until=dead: interrupts off. until=nmi: those off, too; the NMI wakes it, exit code 9.
#include "apic.h"
#include "args.h"
#include "idt.h"
#include "pvh.h"
#include "uart.h"

namespace {

using namespace guest;

constexpr u8 kTimerVector = 0x30;
constexpr u8 kNmiVector = 2;
volatile bool woken = false;

void on_nmi(Frame& /*frame*/) { woken = true; }

void on_timer(Frame& /*frame*/) {
  woken = true;
  LocalApic::end_of_interrupt();
}

}  // namespace

int guest_main(const HvmStartInfo& /*info*/) {
  silence_pics();
  LocalApic::enable(false);
  if (word_is("until", "timer")) {
    set_handler(kTimerVector, on_timer);
    LocalApic::write(kApicTimerDivide, kDivideByOne);
    LocalApic::write(kApicTimer, kTimerVector);
    LocalApic::write(kApicTimerInitial, 50'000'000);
    print("asleep\n");
    while (!woken) {
      wait_for_interrupt();
    }
    print("awake\n");
    return 7;
  }
  set_handler(kNmiVector, on_nmi);
  print("asleep\n");
  if (word_is("until", "nmi")) {
    while (!woken) {
      asm volatile("hlt" : : : "memory");
    }
    print("awake\n");
    return 9;
  }
  if (word_is("until", "dead")) {
    halt_for_ever();
  }
  while (true) {
    wait_for_interrupt();
    print("woken by nothing\n");
  }
}
