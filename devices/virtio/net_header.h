#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "devices/virtio/net_wire.h"

namespace martlet::virtio {

/// martlet::Offload bits that the guest accepts in frames it gets: of its features, or of the mask that
/// VIRTIO_NET_CTRL_GUEST_OFFLOADS sets, which has the same bits. What depends on a bit that is not there is
/// left out (§5.1.3.1).
[[nodiscard]] std::uint32_t guest_offloads(std::uint64_t features) noexcept;
/// martlet::Offload bits that the guest may ask for in frames it sends.
[[nodiscard]] std::uint32_t host_offloads(std::uint64_t features) noexcept;
/// The feature bits that a backend with these martlet::Offload bits can serve.
[[nodiscard]] std::uint64_t features_of(std::uint32_t offloads) noexcept;

/// Could a receiver with these martlet::Offload bits take a frame with this header?
[[nodiscard]] bool takes(std::uint32_t offloads, const NetHeader& header) noexcept;

/// What the guest put in front of a frame of `length` bytes that it sends, made fit for a backend: only what
/// it says is used, and only if it lies within the frame (§5.1.6.2.1). Nothing when the frame is to be dropped.
[[nodiscard]] std::optional<NetHeader> check_header(const NetHeader& guest, std::size_t length,
                                                    std::uint32_t offloads) noexcept;

}  // namespace martlet::virtio
