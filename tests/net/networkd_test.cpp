// --persistent: systemd-networkd itself makes of Martlet's files what Martlet had made.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "net/switch.h"
#include "tests/net/world.h"
#include "tests/support/subprocess.h"

namespace martlet {
namespace {

using namespace test;

constexpr const char* kNetworkd = "/lib/systemd/systemd-networkd";
constexpr const char* kFiles = "/etc/systemd/network";

nlohmann::json json_of(const std::string& command) { return nlohmann::json::parse(output_of(command), nullptr, false); }

/// What there is to these two switches, as `ip` and `bridge` tell it.
nlohmann::json switches() {
  nlohmann::json all;
  for (const auto& link : json_of("ip -j -d link show type bridge")) {
    auto& it = all[link["ifname"].get<std::string>()];
    it["mac"] = link["address"];
    it["mtu"] = link["mtu"];
    it["up"] = link["flags"].dump().find(R"("UP")") != std::string::npos;
    for (const auto* setting : {"forward_delay", "stp_state", "vlan_filtering", "mcast_snooping"}) {
      it[setting] = link["linkinfo"]["info_data"][setting];
    }
  }
  for (const auto& link : json_of("ip -j addr")) {
    if (const auto name = link["ifname"].get<std::string>(); name == "br0" || name == "br1" || name == "eth0") {
      auto& addresses = all[name]["addresses"] = nlohmann::json::array();
      for (const auto& address : link["addr_info"]) {
        if (address["scope"] == "global") {
          addresses.push_back(
              fmt::format("{}/{}", address["local"].get<std::string>(), address["prefixlen"].get<int>()));
        }
      }
      std::sort(addresses.begin(), addresses.end());
      all[name]["master"] = link.value("master", "");
    }
  }
  for (const auto* family : {"-4", "-6"}) {
    all["gateways"].push_back(
        output_of(fmt::format("ip {} -o route show default | grep -o 'via [^ ]* dev [^ ]*' || :", family)));
  }
  for (const auto& port : json_of("bridge -j -compressvlans vlan show")) {
    if (port["ifname"] == "eth0") {
      all["vlans"] = port["vlans"];
    }
  }
  return all;
}

TEST(Networkd, MakesOfTheFilesWhatMartletHadMade) {
  if (::access(kNetworkd, X_OK) != 0) {
    GTEST_SKIP() << "needs systemd-networkd: apt install systemd";
  }
  in_namespace([] {
    hide("/etc/systemd");
    hide("/run/systemd");
    run_shell("mount -t sysfs -o ro sysfs /sys");  // here no udev has to see an interface before networkd takes it
    run_shell(
        "ip link set lo up; ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up;"
        "ip addr add 192.0.2.1/24 dev eth0 && ip addr add fd02::1/64 dev eth0 nodad &&"
        "ip route add default via 192.0.2.9 && ip -6 route add default via fd02::9");
    const auto hosts = switches();
    const SwitchOptions internal{
        .name = "br1",
        .addresses = {parse_host_address("10.7.0.1/24", ""), parse_host_address("fd07::1/64", "")},
        .dhcp = true,
        .nat = true,
        .persistent = true};
    const SwitchOptions external{.name = "br0",
                                 .mode = SwitchMode::External,
                                 .uplink = "eth0",
                                 .persistent = true,
                                 .may_move_default_route = true};
    static_cast<void>(create_switch(internal));
    static_cast<void>(create_switch(external));
    const auto made = switches();
    EXPECT_EQ(made["eth0"]["master"], "br0");

    // The host boots: nothing is there but the card and the files.
    run_shell(fmt::format("cp -r {} /run/systemd/kept", kFiles));
    static_cast<void>(delete_switch({.name = "br1"}));
    static_cast<void>(delete_switch({.name = "br0"}));
    EXPECT_EQ(switches(), hosts);
    run_shell(fmt::format("ip addr flush dev eth0; ip -6 route del default; cp /run/systemd/kept/* {}", kFiles));
    Subprocess networkd{{.command = {kNetworkd}, .deadline = std::chrono::seconds{400}}};
    EXPECT_TRUE(networkd.wait_until([&] { return switches() == made; }));
    EXPECT_EQ(switches(), made) << networkd.err();
    EXPECT_EQ(networkd.err().find("Failed"), std::string::npos) << networkd.err();

    // Guests have addresses from it.
    const Namespace guest;
    run_shell(
        fmt::format("ip link add p1 type veth peer name eth0 netns {} && ip link set p1 master br1 up", guest.path()));
    guest.run("ip link set eth0 up");
    guest.run("for i in $(seq 300); do ip -6 addr show dev eth0 | grep -q fd07:: && exit 0; sleep 0.2; done; exit 1");
    const auto lease =
        guest.inside([] { return output_of("busybox udhcpc -f -q -n -t 20 -T 1 -i eth0 -s /bin/true 2>&1"); });
    EXPECT_THAT(lease, testing::ContainsRegex("lease of 10\\.7\\.0\\.[0-9]+ obtained"));
    networkd.send_signal(SIGTERM);
    EXPECT_EQ(networkd.wait().exit_code, 0) << networkd.err();
  });
}

}  // namespace
}  // namespace martlet
