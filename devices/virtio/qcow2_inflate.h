#pragma once

#include <cstddef>
#include <span>

#include "devices/virtio/qcow2_header.h"

namespace martlet::virtio {

/// Unpacks one compressed cluster: `into` is filled, what follows in `from` is ignored. False when it cannot be.
[[nodiscard]] bool inflate_cluster(Qcow2Header::Compression how, std::span<const std::byte> from,
                                   std::span<std::byte> into) noexcept;

}  // namespace martlet::virtio
