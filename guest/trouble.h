#pragma once

#include "guest/text.h"

namespace guest {

/// Nothing can be run: says why on the console and, by a port of Martlet's that needs no driver, to the host, which
/// ends the VM.
[[noreturn]] void give_up(const Line& why) noexcept;

}  // namespace guest
