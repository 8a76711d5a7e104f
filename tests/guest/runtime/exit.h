#pragma once
// The end of a guest, by whichever exit device its machine has: the command line's exit=port (Martlet's,
// the default) or exit=debug (QEMU's isa-debug-exit at 0xf4).

#include "args.h"
#include "io.h"

namespace guest {

inline constexpr u16 kExitPort = 0x500;
inline constexpr u16 kDebugExit = 0xf4;

[[noreturn]] inline void exit_with(int code) {
  if (word_is("exit", "debug")) {
    out32(kDebugExit, static_cast<u32>(code));
  } else {
    out8(kExitPort, static_cast<u8>(code));
  }
  halt_for_ever();
}

}  // namespace guest
