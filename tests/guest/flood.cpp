// Prints bytes=N bytes in numbered lines of 16, then ends at once: then=exit (code 5), then=off,
// then=fault (a triple fault), then=halt. polls=0 prints without looking at the line status.
#include "acpi.h"
#include "args.h"
#include "pvh.h"
#include "uart.h"

int guest_main(const guest::HvmStartInfo& info) {
  using namespace guest;
  const u64 bytes = number_word("bytes", 65536);
  const bool polls = number_word("polls", 1) != 0;
  for (u64 i = 0; i < bytes; i += 16) {
    char line[16];
    u64 number = i / 16;
    for (int digit = 7; digit >= 0; --digit) {
      line[digit] = "0123456789abcdef"[number % 16];
      number /= 16;
    }
    for (int rest = 8; rest < 15; ++rest) {
      line[rest] = static_cast<char>('a' + (i / 16) % 26);
    }
    line[15] = '\n';
    for (const char character : line) {
      if (polls) {
        print(character);
      } else {
        uart_write(kUartData, static_cast<u8>(character));
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
