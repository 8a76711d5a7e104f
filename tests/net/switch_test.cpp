// Switches made, looked at and deleted again.

#include "net/switch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <regex>
#include <string>
#include <vector>

#include "net/tap.h"
#include "tests/net/switches.h"
#include "tests/support/subprocess.h"

namespace martlet {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TEST(Switch, AnUplinkGetsBackWhatItHadExactly) {
  in_namespace([] {
    furnish_uplink();
    const auto before = addresses_and_routes();
    make(external());
    EXPECT_EQ(output_of("ip -br addr show eth0 | wc -w"), "2\n");  // name and state alone
    EXPECT_EQ(output_of("ip -4 route show table all dev eth0; ip -6 route show dev eth0"), "");
    EXPECT_THAT(output_of("ip route show default"), HasSubstr("via 10.0.0.1 dev br0 src 10.0.0.3 metric 50"));
    EXPECT_THAT(output_of("ip -6 route show default"), HasSubstr("via fd00::1 dev br0 metric 5 pref high"));
    EXPECT_EQ(Rtnetlink{}.find("br0")->address, Rtnetlink{}.find("eth0")->address);
    EXPECT_EQ(Rtnetlink{}.find("br0")->mtu, 1400U);
    unmake("br0");
    EXPECT_FALSE(there_is("br0"));
    EXPECT_EQ(difference(before, addresses_and_routes()), "");
  });
}

TEST(Switch, AnUplinkThatWasDownIsDownAgain) {
  in_namespace([] {
    run_shell(
        "ip link add eth0 type veth peer name far && ip link set eth0 up && ip link set eth0 down && "
        "ip addr add 10.0.0.2/24 dev eth0");
    const auto before = addresses_and_routes();
    make(external());
    EXPECT_THAT(output_of("ip route"), HasSubstr("10.0.0.0/24 dev br0"));
    unmake("br0");
    EXPECT_EQ(difference(before, addresses_and_routes()), "");
  });
}

TEST(Switch, ConnectionsLastWhileTheUplinkBecomesAPort) {
  in_namespace([] {
    const Namespace outside;
    run_shell(
        fmt::format("ip link add eth0 type veth peer name eth0 netns {} && ip link set eth0 up && "
                    "ip addr add 192.0.2.1/24 dev eth0",
                    outside.path()));
    outside.run("ip link set eth0 up && ip addr add 192.0.2.9/24 dev eth0");
    const TempDir directory;
    const auto heard = directory.file("heard");
    const Subprocess listener = outside.inside([&] {
      return Subprocess{
          {.command = {"sh", "-c", "exec busybox nc -l -p 1001 >\"$0\"", heard}, .input = Subprocess::Input::Pipe}};
    });
    Subprocess talker{{.command = {"sh", "-c", "until busybox nc 192.0.2.9 1001; do sleep 0.1; done"},
                       .input = Subprocess::Input::Pipe}};
    const auto arrives = [&](const std::string& line) {
      talker.type(line);
      return talker.wait_until([&] { return std::filesystem::exists(heard) && read_file(heard).ends_with(line); });
    };
    ASSERT_TRUE(arrives("before\n"));
    make(external());
    EXPECT_TRUE(arrives("on the switch\n"));
    unmake("br0");
    EXPECT_TRUE(arrives("after\n"));
    EXPECT_EQ(read_file(heard), "before\non the switch\nafter\n");
  });
}

TEST(Switch, WhatIsThereAlreadyIsLeftAndOtherSettingsAreRefused) {
  in_namespace([] {
    const SwitchOptions internal{.name = "br0", .addresses = {ip("10.0.0.1/24"), ip("fd00::1/64")}};
    make(internal);
    const auto index = Rtnetlink{}.find("br0")->index;
    EXPECT_THAT(create_switch(internal).lines.at(0), HasSubstr("there already"));
    EXPECT_EQ(Rtnetlink{}.find("br0")->index, index);
    EXPECT_THAT(refusal({.name = "br0"}), AllOf(HasSubstr("other settings"), HasSubstr("martlet net delete br0")));
    EXPECT_THAT(refusal({.name = "br0", .mode = SwitchMode::Private}), HasSubstr("other settings"));
    unmake("br0");
    EXPECT_THAT(delete_switch({.name = "br0"}).lines.at(0), HasSubstr("there is no switch br0"));
  });
}

TEST(Switch, AnUplinkIsTheSameByAnyOfItsNames) {
  in_namespace([] {
    run_shell("ip link add eth0 type veth peer name far && ip link property add dev eth0 altname enp7s0");
    auto options = external();
    make(options);
    options.uplink = "enp7s0";
    EXPECT_THAT(create_switch(options).lines.at(0), HasSubstr("there already"));
    unmake("br0");
    make(options);
    EXPECT_EQ(Rtnetlink{}.find("br0")->alias, "martlet external uplink=eth0 uplink-was-down");
    unmake("br0");
  });
}

TEST(Switch, OthersInterfacesAreLeftAlone) {
  in_namespace([] {
    run_shell("ip link add br0 type bridge && ip link set br0 up && ip link add eth0 type veth peer name far");
    for (const auto* name : {"br0", "eth0"}) {
      EXPECT_THAT(refusal({.name = name}), testing::StartsWith(std::string{"switch "} + name));
      EXPECT_NE(error_of([&] { unmake(name); }), "no error");
      EXPECT_TRUE(there_is(name));
    }
  });
}

TEST(Switch, WithAPortItStaysUnlessForced) {
  in_namespace([] {
    make({.name = "br0"});
    const auto tap = Tap::on_bridge({.bridge = "br0", .guest = {0x52, 0x54, 0, 0, 0, 1}});
    EXPECT_THAT(error_of([] { unmake("br0"); }), HasSubstr("mlt0 is on it"));
    EXPECT_THAT(delete_switch({.name = "br0", .force = true}).lines.at(0), HasSubstr("deleted"));
    EXPECT_TRUE(there_is("mlt0"));
  });
}

TEST(Switch, RefusesNonsenseAndLeavesNothing) {
  in_namespace([] {
    run_shell(
        "ip link set lo up; ip link add eth0 type veth peer name far; ip link set eth0 up; ip link set far up;"
        "ip addr add 10.0.0.2/24 dev eth0; ip route add default via 10.0.0.1;"
        "ip link add other type bridge; ip link add eth1 type veth peer name far1; ip link set eth1 master other;"
        "for it in eth0 far; do until ip link show $it | grep -q 'state UP'; do sleep 0.1; done; done;"
        "for i in $(seq 100); do ip addr | grep -q tentative || break; sleep 0.1; done");
    const auto before = addresses_and_routes();
    const auto with = [](auto change) {
      SwitchOptions options{.name = "br0"};
      change(options);
      return refusal(options);
    };
    const auto uplink = [&](const char* name) {
      return with([&](SwitchOptions& it) {
        it.mode = SwitchMode::External;
        it.uplink = name;
      });
    };
    EXPECT_THAT(refusal({.name = "a-name-too-long-x"}), HasSubstr("too long, Linux allows 15"));
    EXPECT_THAT(refusal({.name = "a/b"}), HasSubstr("not a name"));
    EXPECT_THAT(refusal({.name = ""}), HasSubstr("not a name"));
    EXPECT_THAT(refusal({.name = "eth0"}), HasSubstr("taken"));
    EXPECT_THAT(uplink(""), HasSubstr("--uplink"));
    EXPECT_THAT(uplink("eth7"), HasSubstr("uplink eth7 is not there"));
    EXPECT_THAT(uplink("eth1"), HasSubstr("uplink eth1 is a port of other already"));
    EXPECT_THAT(uplink("other"), HasSubstr("is a bridge itself"));
    EXPECT_THAT(uplink("lo"), HasSubstr("loopback"));
    EXPECT_THAT(uplink("eth0"), AllOf(HasSubstr("default route"), HasSubstr("--move-default-route")));
    EXPECT_THAT(with([](auto& it) { it.uplink = "eth0"; }), HasSubstr("only --mode external"));
    const auto address = [&](const char* text) { return with([&](auto& it) { it.addresses = {ip(text)}; }); };
    EXPECT_THAT(address("10.0.0.2/24"), AllOf(HasSubstr("in use"), HasSubstr("eth0 has 10.0.0.2/24")));
    EXPECT_THAT(address("10.0.0.129/25"), HasSubstr("in use"));
    EXPECT_THAT(address("10.1.0.1/8"), HasSubstr("in use"));
    EXPECT_THAT(with([](auto& it) {
                  it.addresses = {ip("10.2.0.1/24"), ip("10.2.0.2/24")};
                }),
                HasSubstr("same network"));
    EXPECT_THAT(with([](auto& it) { it.nat = true; }), HasSubstr("--nat wants"));
    EXPECT_THAT(with([](auto& it) { it.dhcp = true; }), HasSubstr("--dhcp wants"));
    EXPECT_THAT(with([](auto& it) {
                  it.addresses = {ip("fd00::1/80")};
                  it.dhcp = true;
                }),
                HasSubstr("/64"));
    EXPECT_THAT(with([](auto& it) {
                  it.mode = SwitchMode::Private;
                  it.addresses = {ip("10.2.0.1/24")};
                }),
                HasSubstr("without the host"));
    EXPECT_THAT(with([](auto& it) {
                  for (int i = 1; i < 20; ++i) {
                    it.addresses.push_back(ip(fmt::format("10.{}.0.1/24", i).c_str()));
                  }
                }),
                HasSubstr("too many"));
    EXPECT_EQ(difference(before, addresses_and_routes()), "");
  });
}

TEST(Switch, WhatTheKernelRefusesHalfwayIsUndone) {
  in_namespace([] {
    furnish_uplink();
    run_shell(
        "ip link add on0 link eth0 type macvlan && ip tuntap add tun0 mode tun");  // on0 wants eth0's frames itself
    const auto before = addresses_and_routes();
    EXPECT_THAT(refusal(external()), HasSubstr("cannot make a port of eth0: Device or resource busy"));
    EXPECT_EQ(difference(before, addresses_and_routes()), "");
    EXPECT_THAT(refusal({.name = "br0", .mode = SwitchMode::External, .uplink = "tun0"}), HasSubstr("is not Ethernet"));
  });
}

TEST(Switch, AnUplinkThatIsRefusedStaysDown) {
  in_namespace([] {
    run_shell("ip link add eth0 type veth peer name far && ip link add on0 link eth0 type macvlan");
    EXPECT_THAT(refusal(external()), HasSubstr("cannot make a port of eth0: Device or resource busy"));
    EXPECT_THAT(output_of("ip link show up"), Not(HasSubstr("eth0")));
  });
}

TEST(Switch, WithoutPrivilegeItSaysWhatIsMissing) {
  in_namespace([] {
    for (const auto* mode : {"internal", "private"}) {
      const auto outcome = run({.command = {"setpriv", "--reuid=65534", "--clear-groups", MARTLET_PROGRAM, "net",
                                            "create", "br0", "--mode", mode}});
      EXPECT_EQ(outcome.exit_code, 125);
      EXPECT_THAT(outcome.err, AllOf(HasSubstr("CAP_NET_ADMIN"), testing::EndsWith("root\n")));
    }
    EXPECT_FALSE(there_is("br0"));
  });
}

TEST(Switch, WithoutDnsmasqItNamesThePackage) {
  in_namespace([] {
    check(::unshare(CLONE_NEWNS), "unshare");
    run_shell("mount --make-rprivate / && for d in /usr/sbin /usr/local/sbin; do mount -t tmpfs none $d; done");
    const auto outcome =
        run({.command = {MARTLET_PROGRAM, "net", "create", "br0", "--address", "10.0.0.1/24", "--dhcp"},
             .environment = {{"PATH", "/nowhere"}}});
    EXPECT_EQ(outcome.exit_code, 125);
    EXPECT_THAT(outcome.err, HasSubstr("apt install dnsmasq-base"));
    EXPECT_EQ(std::ranges::count(outcome.err, '\n'), 1) << outcome;
    EXPECT_FALSE(Rtnetlink{}.find("br0"));
  });
}

TEST(Switch, GuestsGetAddressesFromDnsmasq) {
  in_namespace([] {
    if (!shell_says("PATH=$PATH:/usr/sbin command -v dnsmasq >/dev/null && busybox udhcpc --help 2>/dev/null")) {
      GTEST_SKIP() << "needs dnsmasq and busybox: apt install dnsmasq-base busybox-static";
    }
    run_shell("ip link set lo up");
    make({.name = "br1", .addresses = {ip("10.0.1.1/29"), ip("fd01::1/64")}, .dhcp = true});
    const Namespace guest;
    run_shell(
        fmt::format("ip link add p1 type veth peer name eth0 netns {} && ip link set p1 master br1 up", guest.path()));
    const auto lease = guest.inside([] {
      return output_of(
          "ip link set eth0 up; busybox udhcpc -f -q -n -t 20 -T 1 -x hostname:visitor -i eth0 -s /bin/true 2>&1");
    });
    std::smatch leased;
    ASSERT_TRUE(std::regex_search(lease, leased, std::regex{"lease of (10\\.0\\.1\\.[2-6]) obtained"})) << lease;
    const auto answer = guest.inside([address = leased.str(1)] {
      return output_of("ip addr add " + address + "/29 dev eth0; busybox nslookup visitor 10.0.1.1 2>&1; true");
    });
    EXPECT_THAT(answer, HasSubstr("Address: " + leased.str(1))) << "the DNS server knows who has a lease";
    guest.run("for i in $(seq 100); do ip -6 addr show dev eth0 | grep -q fd01:: && exit 0; sleep 0.2; done; exit 1");
    EXPECT_EQ(guest.inside([] { return output_of("ip -6 route show default"); }), "");  // it would lead nowhere
    static_cast<void>(delete_switch({.name = "br1", .force = true}));
    EXPECT_EQ(servers(), "");
  });
}

TEST(Switch, PersistentIsWhatNetworkdMakesAgainUntilItIsDeleted) {
  in_namespace([] {
    hide("/etc/systemd");
    furnish_uplink();
    make({.name = "br1", .addresses = {ip("10.7.0.1/24")}, .nat = true, .persistent = true});
    auto options = external();
    options.persistent = true;
    make(options);
    const std::string folder = "/etc/systemd/network/10-martlet-";
    const auto text = [&](const char* file) { return read_file(folder + file); };
    EXPECT_THAT(text("br1.netdev"),
                AllOf(HasSubstr("Name=br1\nKind=bridge\n"), HasSubstr("STP=no\nForwardDelaySec=0\n")));
    EXPECT_THAT(text("br1.link"), HasSubstr("Alias=martlet internal address=10.7.0.1/24 nat persistent\n"));
    EXPECT_THAT(text("br1.network"), HasSubstr("Address=10.7.0.1/24\nIPMasquerade=ipv4\n"));
    EXPECT_THAT(text("br0.network"), AllOf(HasSubstr("Address=10.0.0.2/24\n"), HasSubstr("Gateway=10.0.0.1\n"),
                                           HasSubstr("Gateway=fd00::1\n"), testing::Not(HasSubstr("10.9.0.1")),
                                           testing::Not(HasSubstr("fe80"))));
    EXPECT_THAT(text("br0-uplink.network"), HasSubstr("Name=eth0\n\n[Network]\nBridge=br0\n"));
    EXPECT_THAT(create_switch(options).lines.at(0), HasSubstr("there already"));
    unmake("br0");
    run_shell("ip link delete br1");  // by somebody else
    EXPECT_THAT(delete_switch({.name = "br1"}).lines.at(0),
                HasSubstr("no switch br1; nor is it made at boot any more"));
    EXPECT_EQ(output_of("ls /etc/systemd/network"), "");
    make(options);
    run_shell("ip link delete br0");
    unmake("br0");
    EXPECT_EQ(output_of("ls /etc/systemd/network"), "");
    EXPECT_THAT(refusal({.name = "br0", .mode = SwitchMode::Private, .persistent = true}), HasSubstr("at each boot"));
    // And when the files cannot be written, nothing is left.
    run_shell("mount -o remount,ro /etc/systemd");
    EXPECT_THAT(refusal({.name = "br1", .persistent = true}), HasSubstr("/etc/systemd/network/10-martlet-br1.netdev"));
    EXPECT_FALSE(there_is("br1"));
  });
}

TEST(Switch, DnsmasqGoesWithTheSwitch) {
  in_namespace([] {
    if (!shell_says("PATH=$PATH:/usr/sbin command -v dnsmasq >/dev/null")) {
      GTEST_SKIP() << "needs dnsmasq: apt install dnsmasq-base";
    }
    run_shell("ip link set lo up");
    const SwitchOptions one{.name = "br1", .addresses = {ip("10.0.1.1/24"), ip("fd01::1/64")}, .dhcp = true};
    const SwitchOptions two{.name = "br2", .addresses = {ip("10.0.2.1/24")}, .dhcp = true};
    make(one);
    make(two);
    const std::string both = "martlet-dnsmasq-br1\nmartlet-dnsmasq-br2\n";
    for (int tries = 0; tries < 1000 && servers() != both; ++tries) {  // one that becomes a daemon is there twice
    }
    EXPECT_EQ(servers(), both);
    unmake("br1");
    EXPECT_EQ(servers(), "martlet-dnsmasq-br2\n");
    run_shell("ip link delete br2");  // by somebody else
    unmake("br2");
    EXPECT_EQ(servers(), "");
  });
}

nlohmann::json net_json(const std::vector<std::string>& words) {
  std::vector<std::string> command{MARTLET_PROGRAM, "net"};
  command.insert(command.end(), words.begin(), words.end());
  command.emplace_back("--json");
  const auto outcome = run({.command = command});
  EXPECT_EQ(outcome.exit_code, 0) << outcome;
  return nlohmann::json::parse(outcome.out, nullptr, false);
}

TEST(Switch, IsListedAndShownWithItsPortsAndWhoHoldsThem) {
  in_namespace([] {
    make({.name = "br1", .addresses = {ip("10.0.0.1/24")}});
    make({.name = "br2", .mode = SwitchMode::Private});
    run_shell(
        "ip link add br3 type bridge alias 'martlet internal address=nowhere' 2>/dev/null || "
        "{ ip link add br3 type bridge && ip link set br3 alias 'martlet internal address=nowhere'; }");
    const auto tap = Tap::on_bridge({.bridge = "br1", .guest = {0x52, 0x54, 0, 0, 0, 1}});
    const auto list = net_json({"list"});
    ASSERT_EQ(list.size(), 3U);
    EXPECT_EQ(list[0]["name"], "br1");
    EXPECT_EQ(list[0]["mode"], "internal");
    EXPECT_EQ(list[0]["addresses"][0], "10.0.0.1/24");
    EXPECT_EQ(list[0]["ports"], nlohmann::json({"mlt0"}));
    EXPECT_EQ(list[1]["mode"], "private");
    EXPECT_EQ(list[1]["ports"].size(), 0U);
    EXPECT_EQ(list[2]["mode"], "foreign");
    // A frame from the guest: it is counted, and its sender known.
    std::array<std::uint8_t, NetBackend::kHeaderSize + 60> frame{};
    std::fill_n(frame.begin() + NetBackend::kHeaderSize, 6, std::uint8_t{0xff});
    frame[NetBackend::kHeaderSize + 6] = 0x52;
    frame[NetBackend::kHeaderSize + 7] = 0x54;
    frame[NetBackend::kHeaderSize + 11] = 1;
    const iovec whole{frame.data(), frame.size()};
    ASSERT_EQ(tap->send(0, {&whole, 1}), static_cast<std::ptrdiff_t>(frame.size()));
    frame[NetBackend::kHeaderSize + 11] = 2;  // one of another sender, and one with a tag
    ASSERT_EQ(tap->send(0, {&whole, 1}), static_cast<std::ptrdiff_t>(frame.size()));
    frame[NetBackend::kHeaderSize + 11] = 1;
    frame[NetBackend::kHeaderSize + 12] = 0x81;
    frame[NetBackend::kHeaderSize + 15] = 10;
    ASSERT_EQ(tap->send(0, {&whole, 1}), static_cast<std::ptrdiff_t>(frame.size()));
    const auto shown = net_json({"show", "br1"});
    ASSERT_EQ(shown["ports"].size(), 1U);
    EXPECT_EQ(shown["ports"][0]["name"], "mlt0");
    EXPECT_EQ(shown["ports"][0]["pid"], ::getpid());
    EXPECT_EQ(shown["ports"][0]["counters"]["rx_packets"], 3);
    EXPECT_EQ(shown["ports"][0]["counters"]["rx_bytes"], 180);
    EXPECT_EQ(shown["ports"][0]["counters"]["foreign_senders"], 1);
    EXPECT_EQ(shown["ports"][0]["counters"]["foreign_vlans"], 1);
    for (const auto* key : {"rx_dropped", "tx_packets", "tx_bytes", "tx_dropped"}) {
      EXPECT_TRUE(shown["ports"][0]["counters"][key].is_number()) << key;
    }
    EXPECT_THAT(shown["fdb"].dump(), HasSubstr(R"({"address":"52:54:00:00:00:01","own":false,"port":"mlt0")"));
    EXPECT_THAT(run({.command = {MARTLET_PROGRAM, "net", "show", "br1"}}).out,
                AllOf(HasSubstr("br1: internal\naddresses: 10.0.0.1/24"), HasSubstr(std::to_string(::getpid())),
                      HasSubstr("52:54:00:00:00:01  mlt0")));
    const auto none = run({.command = {MARTLET_PROGRAM, "net", "show", "mlt0"}});
    EXPECT_EQ(none.exit_code, 125);
    EXPECT_THAT(none.err, HasSubstr("there is no switch mlt0"));
  });
}

TEST(Switch, KeepsItsEthernetAddressWhateverPortsComeAndGo) {
  in_namespace([] {
    make({.name = "br0"});
    const auto address = Rtnetlink{}.find("br0")->address;
    run_shell("ip link add p0 address 02:00:00:00:00:01 type veth peer name g0 && ip link set p0 master br0");
    EXPECT_EQ(Rtnetlink{}.find("br0")->address, address);
  });
}

}  // namespace
}  // namespace martlet
