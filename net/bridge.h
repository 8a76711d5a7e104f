#pragma once

#include <string>

#include "net/rtnetlink.h"

namespace martlet {

/// Makes a bridge, down, that forwards at once (no spanning tree, no forward delay), floods multicast as a cable
/// does, and tells VLANs apart where the kernel can. 0 or errno.
[[nodiscard]] int make_bridge(Rtnetlink& netlink, const std::string& name);

}  // namespace martlet
