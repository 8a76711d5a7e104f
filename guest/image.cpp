#include "guest/image.h"

// MARTLET_GUEST_INIT is the file's path.
asm(".section .rodata\n"
    ".balign 16\n"
    "kGuestInit: .incbin \"" MARTLET_GUEST_INIT
    "\"\n"
    "kGuestInitEnd:\n"
    ".previous\n");
extern "C" const std::byte kGuestInit;
extern "C" const std::byte kGuestInitEnd;

namespace martlet {

std::span<const std::byte> guest_init() noexcept { return {&kGuestInit, &kGuestInitEnd}; }

}  // namespace martlet
