// Ends the VM with code=N by via=port (the default) or via=debug, in one write of width=1, 2 or 4 bytes.
#include "exit.h"

#include "args.h"
#include "pvh.h"

int guest_main(const guest::HvmStartInfo& /*info*/) {
  using namespace guest;
  const auto code = static_cast<u32>(number_word("code", 0));
  const u16 port = word_is("via", "debug") ? kDebugExit : kExitPort;
  switch (number_word("width", 1)) {
    case 1:
      out8(port, static_cast<u8>(code));
      break;
    case 2:
      out16(port, static_cast<u16>(code));
      break;
    default:
      out32(port, code);
      break;
  }
  halt_for_ever();
}
