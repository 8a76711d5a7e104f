#pragma once

#include "guest/text.h"

namespace guest {

/// Loads the virtio drivers that the kernel has as modules, from the root's /lib/modules: by ourselves, and else by the
/// root's modprobe. Returns the first thing that went wrong, for people; empty when nothing did.
Line load_drivers(char** environment) noexcept;

/// The kernel's release.
Line kernel_release() noexcept;

}  // namespace guest
