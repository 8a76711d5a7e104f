// What cannot be, by the whole program: one line that says why, exit code 125, and nothing half made.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "net/nft.h"
#include "tests/net/switches.h"
#include "tests/support/subprocess.h"

namespace martlet {
namespace {

using namespace test;
using testing::HasSubstr;

/// All there is of networks in this namespace: interfaces with their masters, addresses, routes, filters.
std::vector<std::string> everything() {
  auto all = addresses_and_routes();
  std::ranges::copy(nft_tables(), std::back_inserter(all));
  std::ranges::sort(all);
  return all;
}

/// "net create br0 …": words of martlet's command line.
void expect_refused(const std::string& words, const char* why, const std::string& by = "") {
  const auto before = everything();
  const auto outcome = run({.command = {"sh", "-c", "exec " + by + " " MARTLET_PROGRAM " " + words}});
  EXPECT_EQ(outcome.exit_code, 125) << words << outcome;
  EXPECT_EQ(outcome.out, "") << words;
  EXPECT_THAT(outcome.err, HasSubstr(why)) << words;
  EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << words << outcome;
  EXPECT_EQ(difference(before, everything()), "") << words;
  EXPECT_EQ(servers(), "") << words;
}

TEST(BadInput, IsToldInOneLineAndNothingIsHalfMade) {
  in_namespace([] {
    run_shell(R"sh(
      sysctl -qw net.ipv6.conf.default.disable_ipv6=1
      ip link set lo up
      ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up
      ip addr add 10.0.0.2/24 dev eth0; ip route add default via 10.0.0.1
      ip link add other type bridge; ip link add eth1 type veth peer name far1; ip link set eth1 master other
      ip link set other up
      ip link add narrow type bridge forward_delay 0
      ip link add eth2 mtu 1400 type veth peer name far2; ip link set far2 up; ip link set eth2 master narrow up
      ip link set narrow mtu 9000 up
      for it in eth0 far eth2 far2 narrow; do # their state comes a moment later
        for i in $(seq 200); do ip link show $it | grep -q 'state UP' && break; sleep 0.1; done
      done)sh");
    const std::pair<const char*, const char*> cases[] = {
        {"net create br0 --mode external --uplink eth7", "uplink eth7 is not there"},
        {"net create br0 --mode external --uplink eth1", "uplink eth1 is a port of other already"},
        {"net create br0 --mode external --uplink other", "is a bridge itself"},
        {"net create br0 --mode external --uplink eth0", "--move-default-route"},
        {"net create br0 --mode sideways", "--mode sideways: expected one of internal, private, external"},
        {"net create a-name-too-long-x", "too long, Linux allows 15"},
        {"net create eth0", "the name is taken by another interface"},
        {"net create other", "that bridge is there, and not made by martlet net"},
        {"net create br0 --address 10.0.0.2/24", "the address 10.0.0.2/24 is in use: eth0 has 10.0.0.2/24"},
        {"net create br0 --address 10.0.0.0/33", "10.0.0.0/33"},
        {"net port p --owner 65534 --bridge other vlan=0", "vlan=0: '0' is no VLAN; expected 1 to 4094"},
        {"net port p --owner 65534 --bridge other vlan=4095", "'4095' is no VLAN"},
        {"net port p --owner 65534 --bridge other vlans=10-20+20-30", "20-30 overlaps 10-20"},
        {"net port p --owner 65534 --bridge other mtu=9000", "mtu=9000: the network carries 1500"},
        {"net port p --owner 65534 --bridge eth0", "eth0: is of kind veth, not a bridge"},
        {"net port p --owner 65534 --bridge br7", "there is no such interface"},
        {"net port far --owner 65534 --bridge other", "far: is already there"},
        {"net port p --owner nobody-of-this-name --bridge other", "there is no such user"},
        {"net show br7", "there is no switch br7"},
        {"net show --port eth0", "eth0 is no port of a bridge"},
        {"net capture br7", "br7"},
        {"net capture other --vlan 4095", "--vlan"},
        {"net capture other --vlan 0", "--vlan"},
        {"run /dev/null -n bridge=other,vlan=4095", "'4095' is no VLAN"},
        {"run /dev/null -n bridge=other,policy=/nowhere", "policy=/nowhere: cannot be read"},
    };
    for (const auto& [words, why] : cases) {
      expect_refused(words, why);
    }
    const std::string nobody = "setpriv --reuid=65534 --clear-groups";
    expect_refused("net create br0", "CAP_NET_ADMIN", nobody);
    expect_refused("net create br0 --mode external --uplink eth0 --move-default-route", "CAP_NET_ADMIN", nobody);
    expect_refused("net port p --owner 65534 --bridge other", "CAP_NET_ADMIN", nobody);
    expect_refused("net capture other", "CAP_NET_RAW", nobody);
    expect_refused("net delete br0", "CAP_NET_ADMIN", nobody);
    run_shell("ip link add br0 type bridge && ip link set br0 alias 'martlet internal' up");
    expect_refused("net delete br0", "CAP_NET_ADMIN", nobody);
    expect_refused("net port p --owner 65534 --bridge narrow mtu=1401",
                   "the network carries 1400; raise it there first: ip link set eth2 mtu 1401");
  });
}

// Its driver puts the card into the first namespace, so this one is the lab's alone.
TEST(Wireless, CardsAreNoUplinks) {
  if (std::getenv("MARTLET_LAB") == nullptr) {
    GTEST_SKIP() << "loads mac80211_hwsim: in the lab only";
  }
  run_shell(R"sh(
    export PATH=$PATH:/usr/sbin
    modprobe mac80211_hwsim radios=1
    for i in $(seq 100); do [ -e /sys/class/net/wlan0 ] && break; sleep 0.1; done
    ip link set wlan0 up)sh");
  expect_refused("net create br0 --mode external --uplink wlan0",
                 "uplink wlan0 cannot be a port of a bridge, as wireless cards cannot");
}

}  // namespace
}  // namespace martlet
