#pragma once

#include "vmm/cli.h"

namespace martlet {

/// martlet run: builds the machine, lends it the terminal and the signals, runs it, writes the verdict.
/// Returns the exit code; throws HostError when the host stood in the way (after writing that verdict).
[[nodiscard]] int run_guest(const RunCommand& command);

}  // namespace martlet
