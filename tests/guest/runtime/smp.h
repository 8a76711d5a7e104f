#pragma once
// Secondary CPUs: INIT, startup IPI, startup IPI (Intel SDM vol. 3A, section 9.4).

#include "apic.h"

namespace guest {

/// Each guest's own: where a secondary CPU arrives, interrupts off, exceptions reported. Never returns.
using ApMain = void (*)(u32 arrival);

/// Starts the CPU with this APIC id and waits until it has reached `main`. False when it never does.
bool start_cpu(u32 apic_id, ApMain main);

}  // namespace guest
