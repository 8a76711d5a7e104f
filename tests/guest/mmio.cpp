// Memory-mapped I/O of 1, 2, 4 and 8 bytes, both directions: where nobody answers (all ones, or what
// absent=N says), and at KVM's own IO-APIC and local APIC.
#include <initializer_list>

#include "acpi.h"
#include "apic.h"
#include "args.h"
#include "check.h"
#include "pvh.h"

namespace {

using namespace guest;

constexpr u64 kUnclaimed = 0xd0000000;

template <class T>
void nobody_answers(u64 address, T absent) {
  check_equal(mmio_read<T>(address), absent, "unclaimed MMIO");
  mmio_write<T>(address, static_cast<T>(0x0123456789abcdef));
  check_equal(mmio_read<T>(address), absent, "unclaimed MMIO, written to");
}

/// Copies by one instruction from device memory to RAM, and back.
void strings(u64 absent) {
  u64 eight[8] = {};
  const void* from = reinterpret_cast<const void*>(kUnclaimed);
  void* into = eight;
  u64 count = 8;
  asm volatile("rep movsq" : "+S"(from), "+D"(into), "+c"(count) : : "memory");
  for (const u64 value : eight) {
    check_equal(value, absent, "one of eight quads copied from unclaimed MMIO");
  }
  from = eight;
  into = reinterpret_cast<void*>(kUnclaimed);
  count = 8;
  asm volatile("rep movsq" : "+S"(from), "+D"(into), "+c"(count) : : "memory");
}

/// Instructions that read, change and write back, or only look.
void read_modify_write(u64 absent) {
  const u64 address = kUnclaimed;
  u8 zero = 0;
  asm volatile("andl $0, (%1); orl $1, (%1); testl $1, (%1); setz %0" : "=q"(zero) : "r"(address) : "cc", "memory");
  check_equal(zero, absent == 0 ? 1 : 0, "TEST of unclaimed MMIO");
  u32 wide = 0;
  asm volatile("movzbl (%1), %0" : "=r"(wide) : "r"(address) : "memory");
  check_equal(wide, absent & 0xffU, "MOVZX of unclaimed MMIO");
  asm volatile("movsbl (%1), %0" : "=r"(wide) : "r"(address) : "memory");
  check_equal(wide, absent & 0xffffffffU, "MOVSX of unclaimed MMIO");
}

void io_apic(u64 address) {
  const IoApic chip{address};
  check_equal(chip.pins(), 24, "IO-APIC pins");
  chip.write(0x10 + 2 * 5, kLvtMasked | 0x35);
  chip.write(0x11 + 2 * 5, 0x07000000);
  check_equal(chip.read(0x10 + 2 * 5), kLvtMasked | 0x35, "an IO-APIC pin's low half");
  check_equal(chip.read(0x11 + 2 * 5), 0x07000000, "an IO-APIC pin's high half");
  chip.mask(5);
}

void local_apic() {
  LocalApic::enable(false);
  check((LocalApic::read(kApicVersion) & 0xffU) >= 0x10, "the local APIC is an integrated one");
  LocalApic::write(kApicTaskPriority, 0x50);
  check_equal(LocalApic::read(kApicTaskPriority), 0x50, "the task priority");
  u64 cr8 = 0;
  asm volatile("movq %%cr8, %0" : "=r"(cr8));
  check_equal(cr8, 5, "CR8 is the task priority's upper half");
  LocalApic::write(kApicTaskPriority, 0);
  check_equal(LocalApic::id(), cpuid(1).ebx >> 24U, "the local APIC's id is CPUID's");
}

}  // namespace

int guest_main(const HvmStartInfo& info) {
  const u64 absent = word("absent") != nullptr ? number_word("absent", 0) : ~u64{0};
  for (const u64 address : {kUnclaimed, kUnclaimed + 0xff8, u64{0xc8000000}}) {
    nobody_answers<u8>(address, static_cast<u8>(absent));
    nobody_answers<u16>(address, static_cast<u16>(absent));
    nobody_answers<u32>(address, static_cast<u32>(absent));
    nobody_answers<u64>(address, absent);
  }
  nobody_answers<u32>(kUnclaimed + 0xffe, static_cast<u32>(absent));  // across a page
  strings(absent);
  read_modify_write(absent);
  io_apic(io_apic_address(info));
  local_apic();
  print("mmio done\n");
  return verdict();
}
