#include <gtest/gtest.h>

#include <set>

#include "net/options.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

TEST(NetOptions, SayWhereTheCardLeads) {
  const auto bridge = parse_net("bridge=br0,mac=52:54:00:ab:CD:ef,mtu=9000,queues=2,vhost=on");
  EXPECT_EQ(bridge.bridge, "br0");
  EXPECT_EQ(bridge.port.mac, (MacAddress{0x52, 0x54, 0x00, 0xab, 0xcd, 0xef}));
  EXPECT_EQ(bridge.port.mtu, 9000);
  EXPECT_EQ(bridge.queues, 2);
  EXPECT_EQ(bridge.vhost, Vhost::On);
  const auto tap = parse_net("tap=tap0,rate=10M,burst=64K");
  EXPECT_EQ(tap.tap, "tap0");
  EXPECT_EQ(tap.port.rate, 10U << 20U);
  EXPECT_EQ(tap.port.burst, 64U << 10U);
  EXPECT_FALSE(tap.port.mac);
  EXPECT_EQ(parse_net("fd=7").fd, 7);
  EXPECT_EQ(parse_net("vhost-user=/run/a,queues=2").vhost_user, "/run/a");
  EXPECT_EQ(parse_net("bridge=br0").port.spoof, Spoof::Deny);
  EXPECT_EQ(parse_net("bridge=br0,spoof=allow").port.spoof, Spoof::Allow);
  EXPECT_EQ(parse_net("bridge=br0,pcap=/tmp/a,,b.pcapng").port.pcap, "/tmp/a,b.pcapng");
}

TEST(NetOptions, RefuseWhatCannotBe) {
  for (const char* const bad : {"",
                                "bridge=br0,tap=tap0",
                                "queues=2",
                                "bridge=br0,mac=52:54:00:12:34",
                                "bridge=br0,mac=52:54:00:12:34:5g",
                                "bridge=br0,mac=52-54-00-12-34-56",
                                "bridge=br0,mac=53:54:00:12:34:56",
                                "bridge=br0,mac=00:00:00:00:00:00",
                                "bridge=br0,mac=ff:ff:ff:ff:ff:ff",
                                "bridge=br0,mac=+1:54:00:12:34:56",
                                "bridge=br0,mtu=67",
                                "bridge=br0,mtu=65536",
                                "bridge=br0,queues=0",
                                "bridge=br0,queues=17",
                                "bridge=br0,vhost=maybe",
                                "bridge=br0,burst=1M",
                                "bridge=br0,rate=0",
                                "tap=tap0,rate=1M,vhost=on",
                                "bridge=br0,spoof=off",
                                "tap=tap0,spoof=deny",
                                "bridge=br0,pcap=",
                                "bridge=br0,pcap=a,vhost=on",
                                "fd=-1",
                                "fd=3,queues=2",
                                "vhost-user=",
                                "vhost-user=a,bridge=br0",
                                "vhost-user=a,pcap=b",
                                "vhost-user=a,rate=1M",
                                "bridge=br0,speed=1",
                                "bridge="}) {
    EXPECT_THROW((void)parse_net(bad), HostError) << bad;
  }
}

TEST(Mac, RandomOnesAreLocalAndUnicast) {
  std::set<MacAddress> seen;
  for (int i = 0; i < 100; ++i) {
    const auto mac = random_mac();
    EXPECT_FALSE(is_multicast(mac));
    EXPECT_EQ(mac[0] & 2U, 2U);
    EXPECT_EQ(parse_mac(to_string(mac), ""), mac);
    seen.insert(mac);
  }
  EXPECT_GT(seen.size(), 90U);
}

}  // namespace
}  // namespace martlet
