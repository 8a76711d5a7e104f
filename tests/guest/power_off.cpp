// Switches itself off: at once, or (after=button, Martlet's machine) when the power button was pressed,
// which the generic event device tells by its interrupt.
#include "acpi.h"
#include "apic.h"
#include "args.h"
#include "idt.h"
#include "pvh.h"
#include "uart.h"

namespace {

using namespace guest;

constexpr u16 kEventPort = 0x604;  // vmm/x86_64/layout.h; the DSDT's _EVT method reads it
constexpr u32 kEventGsi = 9;
constexpr u8 kEventVector = 0x29;
constexpr u8 kPowerButton = 1;
volatile u8 events = 0;

void on_event(Frame& /*frame*/) {
  events = static_cast<u8>(events | in8(kEventPort));
  LocalApic::end_of_interrupt();
}

}  // namespace

int guest_main(const HvmStartInfo& info) {
  if (word_is("after", "button")) {
    silence_pics();
    LocalApic::enable(false);
    set_handler(kEventVector, on_event);
    IoApic{io_apic_address(info)}.route(kEventGsi, kEventVector, static_cast<u8>(LocalApic::id()));
    print("waiting\n");
    while ((events & kPowerButton) == 0) {
      wait_for_interrupt();
    }
    print("power button\n");
  }
  print("switching off\n");
  if (!acpi_power_off(info)) {
    print("FAILED: ACPI does not say how\n");
    return 1;
  }
  halt_for_ever();
}
