// What the kernel makes of a port's settings: VLANs, isolation, MTU, rate; and that nothing outlives the process.

#include "net/port.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <array>
#include <chrono>
#include <thread>

#include "net/port_shaper.h"
#include "net/tap.h"
#include "tests/ports/frames.h"
#include "tests/ports/left.h"
#include "tests/ports/rate.h"
#include "tests/support/namespace.h"

namespace martlet {
namespace {

using test::arrived, test::error_of, test::guard_of, test::in_namespace, test::measured, test::run_shell, test::send,
    test::shell_says;
using testing::ElementsAre, testing::HasSubstr, testing::IsEmpty;

constexpr const char* kBridge = "ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up";
constexpr const char* kFiltering =
    "ip link add br0 type bridge mcast_snooping 0 vlan_filtering 1 2>/dev/null && ip link set br0 up";

MacAddress mac(std::uint8_t number) { return {0x52, 0x54, 0, 0, 0, number}; }

std::unique_ptr<Tap> plug(std::uint8_t number, const PortPolicy& policy = {}) {
  return Tap::on_bridge({.bridge = "br0", .guest = mac(number), .policy = policy});
}

PortPolicy read(const std::string& name) {
  Rtnetlink netlink;
  return read_port(netlink, *netlink.find(name));
}

PortVlans access(std::uint16_t vlan) { return {.ranges = {{vlan, vlan}}, .native = vlan}; }

void in_filtering_namespace(const std::function<void()>& body) {
  bool can = true;
  std::array<int, 2> pipe{};
  ASSERT_EQ(::pipe(pipe.data()), 0);
  in_namespace([&] {
    if (!shell_says(kFiltering)) {
      ASSERT_EQ(::write(pipe[1], "!", 1), 1);
      return;
    }
    body();
  });
  ::close(pipe[1]);
  char byte = 0;
  can = ::read(pipe[0], &byte, 1) == 0;
  ::close(pipe[0]);
  if (!can) {
    GTEST_SKIP() << "this kernel's bridges do not tell VLANs apart (CONFIG_BRIDGE_VLAN_FILTERING); boot.ports does it";
  }
}

TEST(Port, OfOneVlanHearsThatOneOnly) {
  in_filtering_namespace([] {
    const auto a = plug(1, {.vlans = access(10)});
    const auto b = plug(2, {.vlans = access(10)});
    const auto c = plug(3, {.vlans = access(20)});
    const auto other = plug(4);  // VLAN 1, as the bridge has it
    EXPECT_TRUE(send(*a, {.from = mac(1), .text = "ten"}));
    EXPECT_TRUE(send(*c, {.from = mac(3), .text = "twenty"}));
    EXPECT_TRUE(send(*other, {.from = mac(4), .text = "one"}));
    for (const std::uint32_t id : {0U, 1U, 10U, 20U}) {
      EXPECT_TRUE(send(*a, {.from = mac(1), .tags = {0x81000000U | id}, .text = "tagged"}));
    }
    EXPECT_THAT(arrived(*b), ElementsAre("ten"));
    EXPECT_THAT(arrived(*c), IsEmpty());
    EXPECT_THAT(arrived(*a), IsEmpty());
    EXPECT_THAT(arrived(*other), IsEmpty());
    EXPECT_EQ(guard_of(a->name())->foreign_vlans, 4U);
    EXPECT_EQ(read(a->name()).vlans, access(10));
    EXPECT_EQ(read(other->name()).vlans, PortVlans{});
  });
}

TEST(Port, ATrunkHasTagsButForItsNativeVlan) {
  for (const auto spoof : {Spoof::Deny, Spoof::Allow}) {  // the bridge itself holds it, too
    in_filtering_namespace([=] {
      const PortVlans vlans{.ranges = {{10, 12}, {20, 20}}, .native = 11};
      const auto trunk = plug(1, {.spoof = spoof, .vlans = vlans});
      EXPECT_EQ(read(trunk->name()).vlans, vlans);
      std::vector<std::unique_ptr<Tap>> ports;
      for (const auto vlan : std::initializer_list<std::uint8_t>{9, 10, 11, 12, 13, 20, 1}) {
        ports.push_back(plug(vlan, {.vlans = access(vlan)}));
        EXPECT_TRUE(send(*ports.back(), {.from = mac(vlan), .text = std::to_string(vlan)}));
      }
      EXPECT_THAT(arrived(*trunk), ElementsAre("c00a 10", "11", "c00c 12", "c014 20"));
      for (const std::uint32_t id : {1U, 9U, 10U, 12U, 13U, 20U, 4095U}) {
        EXPECT_TRUE(send(*trunk, {.from = mac(1), .tags = {0x81000000U | id}, .text = "t"}));
      }
      EXPECT_TRUE(send(*trunk, {.from = mac(1), .text = "native"}));
      std::vector<std::string> heard;
      for (const auto& port : ports) {
        heard.push_back(testing::PrintToString(arrived(*port)));
      }
      EXPECT_THAT(heard, ElementsAre("{}", "{ \"t\" }", "{ \"native\" }", "{ \"t\" }", "{}", "{ \"t\" }", "{}"));
    });
  }
}

TEST(Port, ATrunkWithoutANativeVlanTakesNoUntaggedFrame) {
  in_filtering_namespace([] {
    const auto trunk = plug(1, {.vlans = {.ranges = {{1, 4094}}}});
    const auto one = plug(2);
    EXPECT_TRUE(send(*trunk, {.from = mac(1), .text = "untagged"}));
    EXPECT_TRUE(send(*trunk, {.from = mac(1), .tags = {0x81000001}, .text = "tagged"}));
    EXPECT_THAT(arrived(*one), ElementsAre("tagged"));
    EXPECT_EQ(read(trunk->name()).vlans, (PortVlans{.ranges = {{1, 4094}}}));
  });
}

TEST(Port, WantsABridgeThatTellsVlansApart) {
  in_namespace([] {
    run_shell(kBridge);
    EXPECT_THAT(error_of([] { (void)plug(1, {.vlans = access(10)}); }),
                HasSubstr("-n bridge=br0: this bridge does not tell VLANs apart; make it: ip link set br0 type bridge "
                          "vlan_filtering 1"));
    EXPECT_FALSE(Rtnetlink{}.find("mlt0"));
  });
}

TEST(Port, ATagInATagLeadsIntoNoOtherVlan) {
  in_filtering_namespace([] {
    const auto trunk = plug(1, {.vlans = {.ranges = {{10, 10}, {12, 12}}}});
    const auto other = plug(2, {.spoof = Spoof::Allow, .vlans = {.ranges = {{10, 10}, {20, 20}}, .native = 10}});
    EXPECT_TRUE(send(*trunk, {.from = mac(1), .tags = {0x8100000a, 0x81000014}, .text = "hop"}));
    EXPECT_TRUE(send(*trunk, {.from = mac(1), .tags = {0x8100000a}, .text = "ten"}));
    EXPECT_THAT(arrived(*other), ElementsAre("ten"));
    EXPECT_EQ(guard_of(trunk->name())->foreign_vlans, 1U);
  });
}

TEST(Port, IsolatedOnesReachTheOthersOnly) {
  in_namespace([] {
    run_shell(kBridge);
    const auto a = plug(1, {.isolation = Isolation::On});
    const auto b = plug(2, {.isolation = Isolation::On});
    const auto uplink = plug(3);
    EXPECT_TRUE(send(*a, {.from = mac(1), .text = "a"}));
    EXPECT_TRUE(send(*uplink, {.from = mac(3), .text = "u"}));
    EXPECT_THAT(arrived(*b), ElementsAre("u"));
    EXPECT_THAT(arrived(*a), ElementsAre("u"));
    EXPECT_THAT(arrived(*uplink), ElementsAre("a"));
    EXPECT_EQ(read(a->name()).isolation, Isolation::On);
    EXPECT_EQ(read(uplink->name()).isolation, Isolation::Off);
  });
}

TEST(Port, HasTheMtuThatTheUplinkCanCarry) {
  in_namespace([] {
    run_shell(kBridge);
    run_shell("ip link add up0 mtu 1400 type veth peer name far && ip link set up0 master br0 up");
    run_shell("ip link set br0 mtu 9000");
    EXPECT_THAT(error_of([] { (void)plug(1, {.mtu = 1401}); }),
                HasSubstr("mtu=1401: the network carries 1400; raise it there first: ip link set up0 mtu 1401"));
    EXPECT_FALSE(Rtnetlink{}.find("mlt0"));
    const auto port = plug(1, {.mtu = 1300});
    EXPECT_EQ(port->mtu(), 1300);
    EXPECT_EQ(read(port->name()).mtu, 1300);
    EXPECT_EQ(Rtnetlink{}.find("br0")->mtu, 9000U);
  });
}

TEST(Port, SaysInThePolicyWhatItIs) {
  in_namespace([] {
    run_shell(kBridge);
    const PortPolicy policies[] = {
        {.mac = mac(1), .mtu = 1500},
        {.mac = mac(2), .mtu = 1280, .isolation = Isolation::On, .rate = 10U << 20U, .burst = 64U << 10U},
        {.mac = mac(3), .mtu = 1500, .rate = 125'000'000, .burst = 1'000'000},
        {.mac = mac(4), .mtu = 1500, .rate = 6ULL << 30U, .burst = 1U << 20U},
        {.mac = mac(5), .mtu = 1500, .spoof = Spoof::Allow, .pcap = "a file, = of pcap=5"},
        {.mac = mac(6), .mtu = 1500, .pcap = "/" + std::string(215, 'x')},
    };
    for (const auto& policy : policies) {
      const auto port = Tap::on_bridge({.bridge = "br0", .guest = *policy.mac, .policy = policy});
      EXPECT_EQ(parse_policy(to_json(read(port->name())), ""), policy) << to_json(read(port->name()));
    }
    EXPECT_THAT(error_of([] { (void)read("lo"); }), HasSubstr("lo is no port of a bridge"));
    EXPECT_THAT(error_of([] { (void)plug(1, {.pcap = std::string(217, 'x')}); }), HasSubstr("216 characters"));
    EXPECT_FALSE(Rtnetlink{}.find("mlt0"));
  });
}

// --- Rates

TEST(Port, FramesToTheGuestComeAtItsRate) {
  in_namespace([] {
    run_shell(kBridge);
    constexpr std::uint64_t kRate = 512U << 10U;  // the lab can overtake it, too
    const auto guest = plug(1, {.rate = kRate});
    const auto other = plug(2);
    const double rate = measured(guest->name(), [&] {
      for (int i = 0; i < 5; ++i) {
        EXPECT_TRUE(send(*other, {.from = mac(2), .text = "x", .size = 1514}));
      }
      (void)arrived(*guest);
    });
    EXPECT_NEAR(rate / kRate, 1, 0.05);
  });
}

TEST(Port, TcpRunsAtItsRateInPacketsOfAnySize) {
  in_namespace([] {
    std::array<int, 2> ready{};
    ASSERT_EQ(::pipe(ready.data()), 0);
    const sockaddr_in there{
        .sin_family = AF_INET, .sin_port = htons(7), .sin_addr = {.s_addr = ::inet_addr("10.0.0.2")}};
    const pid_t server = ::fork();
    if (server == 0) {  // in a namespace of its own: reads and forgets
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      const Fd listener{::unshare(CLONE_NEWNET) == 0 ? ::socket(AF_INET, SOCK_STREAM, 0) : -1};
      sockaddr_in any = there;
      any.sin_addr.s_addr = INADDR_ANY;
      if (::bind(listener.get(), reinterpret_cast<const sockaddr*>(&any), sizeof any) != 0 ||
          ::listen(listener.get(), 1) != 0 || ::write(ready[1], "!", 1) != 1) {
        ::_exit(1);
      }
      const Fd client{::accept(listener.get(), nullptr, nullptr)};
      for (std::array<char, 65536> bytes{}; ::read(client.get(), bytes.data(), bytes.size()) > 0;) {
      }
      ::_exit(0);
    }
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    const auto pid = std::to_string(server);
    run_shell("ip link add w0 type veth peer name w1 netns " + pid +
              " && ip addr add 10.0.0.1/24 dev w0 && ip link set w0 up");
    run_shell("nsenter -t " + pid + " -n sh -c 'ip addr add 10.0.0.2/24 dev w1 && ip link set w1 up'");
    constexpr std::uint64_t kRate = 2U << 20U;
    Rtnetlink netlink;
    ASSERT_EQ(shape(netlink, netlink.find("w0")->index, 1500, {.rate = kRate}), 0);
    const Fd client{::socket(AF_INET, SOCK_STREAM, 0)};
    ASSERT_EQ(::connect(client.get(), reinterpret_cast<const sockaddr*>(&there), sizeof there), 0);
    const std::vector<char> bytes(65536);
    const double rate =
        measured("w0", [&] { ASSERT_GT(::send(client.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL), 0); });
    EXPECT_NEAR(rate / kRate, 1, 0.05);
    ::kill(server, SIGKILL);
    ::waitpid(server, nullptr, 0);
  });
}

// --- What is left

TEST(Port, ManyComeAndGoAtOnce) {
  in_namespace([] {
    run_shell(kBridge);
    std::vector<std::thread> threads;
    std::vector<std::unique_ptr<Tap>> ports(32);
    for (std::uint8_t i = 0; i < ports.size(); ++i) {
      threads.emplace_back([&ports, i] {
        for (int round = 0; round < 3; ++round) {
          ports[i].reset();
          ports[i] = plug(i, {.isolation = Isolation::On, .rate = 1U << 20U});
        }
      });
    }
    for (auto& thread : threads) {
      thread.join();
    }
    for (std::uint8_t i = 0; i < ports.size(); ++i) {
      EXPECT_EQ(read(ports[i]->name()).mac, mac(i));
    }
    ports.clear();
    EXPECT_THAT(nft_tables(), IsEmpty());
    EXPECT_EQ(Rtnetlink{}.links().size(), 2U);  // lo, br0
  });
}

TEST(Port, NothingIsLeftWheneverItsProcessIsKilled) {
  static constexpr int kRounds = 50;
  in_namespace([] {
    run_shell(kBridge);
    // The moments are spread over twice the time that a port takes on this machine.
    const auto begun = std::chrono::steady_clock::now();
    plug(1, {.isolation = Isolation::On, .rate = 1U << 20U}).reset();
    const auto step = 2 * (std::chrono::steady_clock::now() - begun) / kRounds;
    int halfway = 0;
    for (int round = 0; round < kRounds; ++round) {
      const pid_t owner = ::fork();
      if (owner == 0) {
        for (;;) {
          const auto port = plug(1, {.isolation = Isolation::On, .rate = 1U << 20U});
          if (round % 2 != 0) {
            ::pause();  // "running"; the others come and go
          }
        }
      }
      std::this_thread::sleep_for(round * step);
      halfway += nft_tables().empty() ? 0 : 1;
      ::kill(owner, SIGKILL);
      ::waitpid(owner, nullptr, 0);
      EXPECT_THAT(nft_tables(), IsEmpty()) << round;
      EXPECT_EQ(Rtnetlink{}.links().size(), 2U) << round;
    }
    EXPECT_GT(halfway, 0);
  });
}

}  // namespace
}  // namespace martlet
