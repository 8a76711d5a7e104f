// What a switch promises, also while others have their hands on the host.

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stop_token>
#include <string>
#include <thread>

#include "net/dnsmasq.h"
#include "net/nft.h"
#include "net/switch_filter.h"
#include "tests/net/reach.h"
#include "tests/net/switches.h"
#include "tests/support/subprocess.h"

namespace martlet {
namespace {

using namespace test;
using testing::HasSubstr;

TEST(Switch, WhatOthersTookFromItComesBack) {
  in_namespace([] {
    const bool serves = shell_says("PATH=$PATH:/usr/sbin command -v dnsmasq >/dev/null");
    run_shell("ip link set lo up");
    const SwitchOptions closed{.name = "br1", .mode = SwitchMode::Private};
    const SwitchOptions internal{.name = "br2", .addresses = {ip("10.0.0.1/24"), ip("fd00::1/64")}, .dhcp = serves};
    make(closed);
    make(internal);
    EXPECT_THAT(nft_tables(), testing::UnorderedElementsAre("martlet-switch-br1", "martlet-switch-br2"));
    for (const auto* name : {"br1", "br2"}) {  // as a reload of nftables.service does: nft flush ruleset
      remove_switch_filter(name);
    }
    run_shell("ip addr del 10.0.0.1/24 dev br2");
    stop_dnsmasq("br2");
    EXPECT_THAT(create_switch(closed).lines,
                testing::ElementsAre("switch br1 was there without its filter: made again"));
    EXPECT_THAT(create_switch(internal).lines,
                testing::ElementsAre(std::string{"switch br2 was there without its filter, 10.0.0.1/24"} +
                                     (serves ? ", dnsmasq" : "") + ": made again"));
    EXPECT_THAT(nft_tables(), testing::UnorderedElementsAre("martlet-switch-br1", "martlet-switch-br2"));
    EXPECT_THAT(output_of("ip -br addr show br2"), HasSubstr("10.0.0.1/24"));
    EXPECT_EQ(servers(), serves ? "martlet-dnsmasq-br2\n" : "");
    EXPECT_THAT(create_switch(internal).lines.at(0), HasSubstr("there already"));
    unmake("br1");
    unmake("br2");
    EXPECT_THAT(nft_tables(), testing::IsEmpty());
  });
}

TEST(Switch, ForwardingBeginsWhenAllElseIsDone) {
  in_namespace([] {
    hide("/etc/systemd");
    run_shell("mount -o remount,ro /etc/systemd; sysctl -qw net.ipv4.ip_forward=0");
    const auto forwards = [] { return read_file("/proc/sys/net/ipv4/ip_forward"); };
    SwitchOptions options{.name = "br0", .addresses = {ip("10.0.0.1/24")}, .nat = true, .persistent = true};
    EXPECT_THAT(refusal(options), HasSubstr("/etc/systemd/network"));
    EXPECT_EQ(forwards(), "0\n");
    options.persistent = false;
    EXPECT_THAT(create_switch(options).lines, testing::Contains(HasSubstr("net.ipv4.ip_forward=1")));
    EXPECT_EQ(forwards(), "1\n");
    // Where it is so, and may not be written, there is nothing to write.
    run_shell("mount --bind /proc/sys/net /proc/sys/net && mount -o remount,bind,ro /proc/sys/net");
    EXPECT_EQ(create_switch({.name = "br1", .addresses = {ip("10.0.1.1/24")}, .nat = true}).lines.size(), 1U);
  });
}

TEST(Switch, PrivateIsSoUntilItIsGone) {
  in_namespace([] {
    const Namespace guest;
    run_shell(
        fmt::format("ip link set lo up; ip addr add 192.0.2.1/32 dev lo; sysctl -qw net.ipv4.conf.all.rp_filter=0 "
                    "net.ipv4.conf.default.rp_filter=0; ip link add p0 type veth peer name eth0 netns {} && "
                    "ip link set p0 up",
                    guest.path()));
    guest.run(
        "ip link set eth0 up && ip addr add 10.0.0.11/24 dev eth0 && ip route add 192.0.2.1/32 dev eth0 && "
        "ip neigh replace 192.0.2.1 lladdr ff:ff:ff:ff:ff:ff dev eth0 nud permanent");
    // Off a bridge its port is an interface of the host's own, and nothing else: that way nobody is heard.
    run_shell("ip rule add pref 100 lookup local; ip rule del pref 0; ip rule add pref 1 iif p0 blackhole");
    const auto ear = open_socket(AF_INET, SOCK_DGRAM);
    const sockaddr_in here{.sin_family = AF_INET, .sin_port = htons(kPort)};
    ASSERT_EQ(::bind(ear.get(), reinterpret_cast<const sockaddr*>(&here), sizeof here), 0);
    const std::jthread talker{[&](const std::stop_token& stop) {
      guest.inside([&] {
        const auto socket = open_socket(AF_INET, SOCK_DGRAM);
        sockaddr_in host = here;
        host.sin_addr.s_addr = ::inet_addr("192.0.2.1");
        while (!stop.stop_requested()) {
          ::sendto(socket.get(), "!", 1, 0, reinterpret_cast<const sockaddr*>(&host), sizeof host);
        }
        return 0;
      });
    }};
    run_shell("ip link add br9 type bridge && ip link set br9 up && ip link set p0 master br9");  // it would be heard
    while (read_all(ear).empty()) {
    }
    run_shell("ip link delete br9");
    static_cast<void>(read_all(ear));
    for (int round = 0; round < 30; ++round) {
      make({.name = "br0", .mode = SwitchMode::Private});
      run_shell("ip link set p0 master br0");
      static_cast<void>(delete_switch({.name = "br0", .force = true}));
      ASSERT_EQ(read_all(ear).size(), 0U) << round;
    }
  });
}

TEST(Switch, PersistentHasEachFamilyAsTheHostHadIt) {
  in_namespace([] {
    hide("/etc/systemd");
    run_shell(
        "ip link add eth0 type veth peer name far && ip link set eth0 up && ip link set far up &&"
        "ip addr add 10.0.0.2/24 dev eth0 valid_lft 5000 preferred_lft 3000 && ip route add default via 10.0.0.1 &&"
        "ip addr add fd00::2/64 dev eth0 nodad && ip -6 route add default via fd00::1");
    auto options = external();
    options.persistent = true;
    make(options);
    const auto text = read_file("/etc/systemd/network/10-martlet-br0.network");
    EXPECT_THAT(text, testing::EndsWith("[Network]\nDHCP=ipv4\nAddress=fd00::2/64\nGateway=fd00::1\n"));
    unmake("br0");
  });
}

}  // namespace
}  // namespace martlet
