#pragma once

#include <memory>

#include "net/backend.h"
#include "net/options.h"
#include "vmm/base/say.h"

namespace martlet {

/// What `options` ask for; `guest` is the guest's MAC address. `say` hears of trouble later on. Throws HostError.
[[nodiscard]] std::unique_ptr<NetBackend> open_backend(const NetOptions& options, const MacAddress& guest,
                                                       const Say& say);

}  // namespace martlet
