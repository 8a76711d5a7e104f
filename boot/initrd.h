#pragma once

#include <optional>
#include <string>
#include <vector>

#include "boot/cpio_files.h"
#include "vmm/base/guest_memory.h"

namespace martlet {

/// What the guest's initial RAM disk is made of: `files` in their order, then `root`, then `own`.
struct InitrdRequest {
  std::vector<std::string> files;     ///< finished archives, taken as they are
  std::optional<std::string> root{};  ///< a directory, packed as an initramfs
  std::optional<CpioFiles> own{};     ///< what Martlet adds
  bool custom_init = false;           ///< the command line names the first program (rdinit=): /init is not required
};

/// Loads it as high as it fits into RAM from `floor` up to `ceiling`, each part 4-byte aligned, and
/// returns where it is; nothing when nothing was asked for. Throws HostError that names what is wrong.
[[nodiscard]] std::optional<GuestRange> load_initrd(const GuestMemory& memory, const InitrdRequest& request,
                                                    GuestAddr floor, GuestAddr ceiling);

}  // namespace martlet
