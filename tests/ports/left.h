#pragma once

#include <gmock/gmock.h>
#include <linux/netlink.h>

#include <string>
#include <vector>

#include "net/nft.h"
#include "net/rtnetlink.h"

namespace martlet::test {

/// All that a port can leave behind besides the bridge.
inline void expect_nothing_left() {
  NetlinkSocket nftables{NETLINK_NETFILTER};
  EXPECT_THAT(nft_tables(nftables), testing::IsEmpty());
  std::vector<std::string> links;
  for (const auto& link : Rtnetlink{}.links()) {
    if (link.name != "lo" && link.name != "br0") {
      links.push_back(link.name);
    }
  }
  EXPECT_THAT(links, testing::IsEmpty());
}

}  // namespace martlet::test
