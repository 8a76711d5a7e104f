#pragma once

#include <cstdint>
#include <vector>

#include "net/host_forward.h"
#include "vmm/base/fd.h"

namespace martlet {

struct PasstOptions {
  static constexpr std::uint16_t kMostMtu = 65520;

  std::uint16_t mtu = kMostMtu;  ///< what it tells the guest
  std::vector<HostForward> forwards{};
};

/// Starts passt(1), which carries a guest's TCP, UDP and pings by sockets of the host's, without any privilege. It
/// runs by itself in the background and speaks as StreamBackend does over the socket that is returned; when that is
/// closed, in whatever way its owner ends, passt ends. Throws HostError, also with what passt complains of.
[[nodiscard]] Fd start_passt(const PasstOptions& options);

}  // namespace martlet
