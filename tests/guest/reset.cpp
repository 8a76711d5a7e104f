// Resets the machine: by=acpi (the FADT's register), by=i8042, by=cf9, by=triple (a fault with no handler).
// Or loses its way, by=jump: to where there is no memory to execute, which KVM cannot go on from. With at=kernel the
// last two happen at addresses that are a Linux kernel's: 0xffffffff80000000 and up is memory from 0 on.
#include "acpi.h"
#include "args.h"
#include "pvh.h"
#include "uart.h"

namespace {

/// At 0xffffffff80000000 the first GiB, behind it the fourth: two entries of the tables that are there.
void go_to_kernel_addresses() {
  using guest::u64;
  constexpr u64 kAddress = 0x000ffffffffff000;
  u64 cr3 = 0;
  asm volatile("movq %%cr3, %0" : "=r"(cr3));
  auto* const pml4 = reinterpret_cast<volatile u64*>(cr3 & kAddress);
  auto* const pdpt = reinterpret_cast<volatile u64*>(pml4[0] & kAddress);
  pml4[511] = pml4[0];
  pdpt[510] = pdpt[0];
  pdpt[511] = pdpt[3];
  asm volatile("leaq 1f(%%rip), %%rax; addq $-0x80000000, %%rax; jmp *%%rax; 1:" : : : "rax", "cc", "memory");
}

}  // namespace

int guest_main(const guest::HvmStartInfo& info) {
  using namespace guest;
  print("resetting\n");
  const bool at_kernel = word_is("at", "kernel");
  if (at_kernel) {
    go_to_kernel_addresses();
  }
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
    asm volatile("jmp *%0" : : "r"(at_kernel ? u64{0xffffffffd0000000} : u64{0xd0000000}));
  } else {
    const struct [[gnu::packed]] {
      u16 limit;
      u64 base;
    } no_table{0, 0};
    asm volatile("lidt %0; ud2" : : "m"(no_table));
  }
  halt_for_ever();
}
