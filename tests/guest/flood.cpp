// Prints bytes=N bytes in numbered lines of 16, then ends at once: exit code 5, or then=off, then=fault (a
// triple fault), then=halt. by=poll looks at the line status before each byte (the default), by=write does
// not, by=string sends 4 KiB an instruction.
#include "acpi.h"
#include "args.h"
#include "pvh.h"
#include "uart.h"

namespace {

using namespace guest;

constexpr u32 kLine = 16;
constexpr u32 kBlock = 4096;
u8 block[kBlock];

/// "0000002afffffff\n": eight hexadecimal digits and seven letters.
void write_line(u8* line, u64 number) {
  for (u32 digit = 8; digit-- > 0; number /= 16) {
    line[digit] = static_cast<u8>("0123456789abcdef"[number % 16]);
  }
}

}  // namespace

int guest_main(const HvmStartInfo& info) {
  for (u32 line = 0; line < kBlock / kLine; ++line) {
    u8* const at = block + std::size_t{line} * kLine;
    write_line(at, line);
    for (u32 rest = 8; rest < kLine - 1; ++rest) {
      at[rest] = static_cast<u8>('a' + line % 26);
    }
    at[kLine - 1] = '\n';
  }
  const bool strings = word_is("by", "string");
  const bool polls = !strings && !word_is("by", "write");
  const u64 blocks = number_word("bytes", 65536) / kBlock;
  for (u64 number = 0; number < blocks; ++number) {
    write_line(block, number);  // a block's first line has the block's number
    if (strings) {
      outs(kCom1, block, kBlock);
      continue;
    }
    for (const u8 byte : block) {
      if (polls) {
        print(static_cast<char>(byte));
      } else {
        uart_write(kUartData, byte);
      }
    }
  }
  if (word_is("then", "off")) {
    acpi_power_off(info);
    halt_for_ever();
  }
  if (word_is("then", "fault")) {
    const struct [[gnu::packed]] {
      u16 limit;
      u64 base;
    } no_table{0, 0};
    asm volatile("lidt %0; ud2" : : "m"(no_table));
  }
  if (word_is("then", "halt")) {
    halt_for_ever();
  }
  return 5;
}
