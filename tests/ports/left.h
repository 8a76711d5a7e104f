#pragma once

#include <gmock/gmock.h>

#include <optional>
#include <string>
#include <vector>

#include "net/nft.h"
#include "net/port_guard.h"
#include "net/rtnetlink.h"

namespace martlet::test {

/// What the kernel says of the filter of the port that has this name.
inline std::optional<PortGuard::State> guard_of(const std::string& port) {
  const auto link = Rtnetlink{}.find(port);
  return link ? PortGuard::read(port, link->index) : std::nullopt;
}

/// All that a port can leave behind besides the bridge.
inline void expect_nothing_left() {
  EXPECT_THAT(nft_tables(), testing::IsEmpty());
  std::vector<std::string> links;
  for (const auto& link : Rtnetlink{}.links()) {
    if (link.name != "lo" && link.name != "br0") {
      links.push_back(link.name);
    }
  }
  EXPECT_THAT(links, testing::IsEmpty());
}

}  // namespace martlet::test
