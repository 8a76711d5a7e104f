#pragma once

#include <cstdint>
#include <optional>

#include "net/rtnetlink.h"

namespace martlet {

/// What goes out of an interface: bytes as the interfaces' counters count them.
struct Shape {
  std::uint64_t rate = 0;   ///< bytes a second
  std::uint64_t burst = 0;  ///< bytes at once after a pause; 0: a tenth of a second's worth
  friend bool operator==(const Shape&, const Shape&) = default;
};

/// From now on, by the kernel's token bucket filter (tc-tbf(8)); it goes with the interface. 0 or errno.
[[nodiscard]] int shape(Rtnetlink& netlink, int interface, std::uint32_t mtu, const Shape& shape);
[[nodiscard]] std::optional<Shape> read_shape(Rtnetlink& netlink, int interface);

}  // namespace martlet
