#include "guest/image.h"

// MARTLET_GUEST_INIT is the file's path.
asm(".section .rodata\n"
    ".balign 16\n"
    "martlet_guest_init: .incbin \"" MARTLET_GUEST_INIT
    "\"\n"
    "martlet_guest_init_end:\n"
    ".previous\n");
extern "C" const std::byte martlet_guest_init;
extern "C" const std::byte martlet_guest_init_end;

namespace martlet {

std::span<const std::byte> guest_init() noexcept { return {&martlet_guest_init, &martlet_guest_init_end}; }

}  // namespace martlet
