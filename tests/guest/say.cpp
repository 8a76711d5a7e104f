// Says text=…, in which _ is a space and | a newline, then does what then= tells: exit (with code=N, 0 if there is
// none), halt (interrupts on) or spin (interrupts off).
#include "apic.h"
#include "args.h"
#include "idt.h"
#include "pvh.h"
#include "uart.h"

int guest_main(const guest::HvmStartInfo& /*info*/) {
  using namespace guest;
  for (const char* text = word("text"); text != nullptr && *text != '\0' && *text != ' '; ++text) {
    if (*text == '|') {
      print("\r\n");
    } else {
      print(*text == '_' ? ' ' : *text);
    }
  }
  while (word_is("then", "spin")) {
    asm volatile("" : : : "memory");
  }
  if (word_is("then", "halt")) {
    silence_pics();
    LocalApic::enable(false);
    while (true) {
      wait_for_interrupt();
    }
  }
  return static_cast<int>(number_word("code", 0));
}
