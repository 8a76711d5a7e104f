#pragma once

#include <memory>
#include <string>

#include "net/backend.h"
#include "net/options.h"
#include "vmm/base/say.h"

namespace martlet {

/// Where a card leads, as the user put it: "bridge=br0".
[[nodiscard]] std::string describe_way(const NetOptions& options);

/// What `options` ask for; `guest` is the guest's MAC address. `say` hears of trouble later on. Throws HostError.
[[nodiscard]] std::unique_ptr<NetBackend> open_backend(const NetOptions& options, const MacAddress& guest,
                                                       const Say& say);

}  // namespace martlet
