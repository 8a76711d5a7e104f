#pragma once

#include <string>
#include <string_view>

#include "vmm/bundle_options.h"
#include "vmm/cli.h"

namespace martlet {

/// martlet dump: asks a VM for a bundle, waits until it is written and returns where it is. Throws HostError.
[[nodiscard]] std::string dump_vm(const DumpCommand& command);

/// What dump_vm() asked for. Throws HostError when it asked for nothing that we know.
[[nodiscard]] BundleOptions bundle_of_request(std::string_view request);

}  // namespace martlet
