// Panics as a kernel does: by=pvpanic, by=text (says so on the console, then resets), by=halt (says so and
// stays, as with panic=0).
#include "args.h"
#include "pvh.h"
#include "uart.h"

int guest_main(const guest::HvmStartInfo& /*info*/) {
  using namespace guest;
  if (word_is("by", "pvpanic")) {
    constexpr u16 kPvpanic = 0x505;
    constexpr u8 kPanicked = 1;
    if ((in8(kPvpanic) & kPanicked) == 0) {
      print("FAILED: pvpanic knows no panic\n");
      return 1;
    }
    out8(kPvpanic, kPanicked);
    halt_for_ever();
  }
  print("[    0.100000] Kernel panic - not syncing: no working init found\r\n");
  print("[    0.100001] CPU: 0 PID: 1 Comm: swapper/0\r\n");
  print("[    0.100002] ---[ end Kernel panic - not syncing: no working init found ]---\r\n");
  if (word_is("by", "text")) {
    out8(0x64, 0xfe);
  }
  halt_for_ever();
}
