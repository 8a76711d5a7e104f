// Resets the machine: by=acpi (the FADT's register), by=i8042, by=cf9, by=triple (a fault with no handler).
// Or loses its way, by=jump: to where there is no memory to execute, which KVM cannot go on from.
#include "acpi.h"
#include "args.h"
#include "pvh.h"
#include "uart.h"

int guest_main(const guest::HvmStartInfo& info) {
  using namespace guest;
  print("resetting\n");
  if (word_is("by", "acpi")) {
    if (!acpi_reset(info)) {
      print("FAILED: the FADT has no reset register\n");
      return 1;
    }
  } else if (word_is("by", "i8042")) {
    constexpr u16 kCommand = 0x64;
    constexpr u8 kInputBufferFull = 0x02;
    constexpr u8 kPulseReset = 0xfe;
    while ((in8(kCommand) & kInputBufferFull) != 0) {
    }
    out8(kCommand, kPulseReset);
  } else if (word_is("by", "cf9")) {
    out8(0xcf9, 0x02);
    out8(0xcf9, 0x06);
  } else if (word_is("by", "jump")) {
    asm volatile("jmp *%0" : : "r"(u64{0xd0000000}));
  } else {
    const struct [[gnu::packed]] {
      u16 limit;
      u64 base;
    } no_table{0, 0};
    asm volatile("lidt %0; ud2" : : "m"(no_table));
  }
  halt_for_ever();
}
