// Ports that stay, for users who may make none.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <array>
#include <chrono>
#include <csignal>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <thread>

#include "net/kept_port.h"
#include "net/open_backend.h"
#include "net/port.h"
#include "net/tap.h"
#include "tests/ports/frames.h"
#include "tests/ports/left.h"
#include "tests/ports/rate.h"
#include "tests/support/namespace.h"
#include "tests/support/subprocess.h"

namespace martlet {
namespace {

using test::arrived, test::error_of, test::expect_nothing_left, test::guard_of, test::in_namespace, test::measured,
    test::run_shell, test::send;
using testing::AllOf, testing::ElementsAre, testing::HasSubstr, testing::IsEmpty;

constexpr MacAddress kGuest = {0x52, 0x54, 0, 0, 0, 7};
constexpr MacAddress kOther = {0x52, 0x54, 0, 0, 0, 8};
constexpr uid_t kNobody = 65534;

void make_bridge() { run_shell("ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up"); }

/// From now on this process is an ordinary user's, on a host where those may open /dev/net/tun, as on Debian.
void become_nobody() {
  ASSERT_EQ(::unshare(CLONE_NEWNS), 0);
  ASSERT_EQ(::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr), 0);
  ASSERT_EQ(::mount("tmpfs", "/dev/net", "tmpfs", 0, "mode=755"), 0);
  ASSERT_EQ(::mknod("/dev/net/tun", S_IFCHR | 0666, ::makedev(10, 200)), 0);
  ASSERT_EQ(::chmod("/dev/net/tun", 0666), 0);
  ASSERT_EQ(::setresuid(kNobody, kNobody, kNobody), 0);
}

KeptPort port_of(const PortPolicy& policy) {
  return {.name = "jane0", .bridge = "br0", .owner = kNobody, .policy = policy};
}

TEST(KeptPort, IsItsOwnersWithFilterQueuesAndAddress) {
  in_namespace([] {
    make_bridge();
    make_kept_port(port_of({.mac = kGuest, .isolation = Isolation::On}));
    const auto far = Tap::on_bridge({.bridge = "br0", .guest = kOther});
    become_nobody();
    EXPECT_EQ(guest_address({.tap = "jane0"}), kGuest);
    EXPECT_THAT(error_of([] { (void)guest_address({.tap = "jane0", .port = {.mac = kOther}}); }),
                HasSubstr("-n mac=52:54:00:00:00:08: the port jane0 is for 52:54:00:00:00:07"));
    const auto guest = Tap::open({.name = "jane0", .pairs = 2});
    EXPECT_NE(guest->offloads() & kTso4, 0U);
    run_shell("until bridge link show dev jane0 | grep -q 'state forwarding'; do sleep 0.01; done");
    EXPECT_TRUE(send(*guest, {.from = kGuest, .text = "own"}));
    EXPECT_TRUE(send(*guest, {.from = kOther, .text = "foreign"}));
    EXPECT_THAT(arrived(*far), ElementsAre("own"));
    EXPECT_THAT(error_of([] { make_kept_port({.name = "mine", .bridge = "br0", .policy = {}}); }),
                HasSubstr("net port mine: making a TAP needs CAP_NET_ADMIN"));
    EXPECT_THROW(delete_kept_port("jane0"), HostError);
    EXPECT_TRUE(Rtnetlink{}.find("jane0"));
  });
}

TEST(KeptPort, IsCapturedAsItWasMadeUnlessItsUserSaysOtherwise) {
  in_namespace([] {
    make_bridge();
    const test::TempDir directory;
    ASSERT_EQ(::chown(directory.path().c_str(), kNobody, kNobody), 0);
    const auto made = directory.file("made");
    const auto said = directory.file("said");
    make_kept_port(port_of({.mac = kGuest, .pcap = made}));
    become_nobody();
    const auto use = [](const std::string& words) {
      const auto guest = open_backend(parse_net("tap=jane0" + words), kGuest, [](std::string_view) {});
      EXPECT_TRUE(send(*guest, {.from = kGuest, .text = "hello"}));
    };
    const auto holds = [](const std::string& file) {
      std::ifstream stream{file, std::ios::binary};
      return std::string{std::istreambuf_iterator<char>{stream}, {}}.find("\5hello") != std::string::npos;
    };
    use(",pcap=" + said);
    EXPECT_TRUE(holds(said));
    EXPECT_FALSE(holds(made));
    use("");
    EXPECT_TRUE(holds(made));
  });
}

TEST(KeptPort, ReadsBackAsItWasMadeAndGoesWithAllItHas) {
  in_namespace([] {
    make_bridge();
    for (const auto spoof : {Spoof::Deny, Spoof::Allow}) {
      for (const std::uint64_t rate : {0U, 3U << 20U}) {
        const PortPolicy policy{.mac = kGuest,
                                .mtu = 1400,
                                .spoof = spoof,
                                .isolation = Isolation::On,
                                .rate = rate,
                                .burst = rate / 8,
                                .pcap = "jane.pcapng"};
        EXPECT_EQ(make_kept_port(port_of(policy)), kGuest);
        Rtnetlink netlink;
        EXPECT_EQ(read_port(netlink, *netlink.find("jane0")), policy);
        EXPECT_THAT(error_of([&] { make_kept_port(port_of(policy)); }), HasSubstr("jane0: is already there"));
        delete_kept_port("jane0");
        expect_nothing_left();
      }
    }
    EXPECT_THAT(error_of([] { delete_kept_port("jane0"); }), HasSubstr("jane0: there is no such port"));
    make_kept_port(port_of({.rate = 1000}));
    run_shell("ip link delete jane0");  // behind our back
    delete_kept_port("jane0");
    expect_nothing_left();
  });
}

TEST(KeptPort, KilledAtAnyMoment) {
  static constexpr int kRounds = 50;
  in_namespace([] {
    make_bridge();
    const auto port = port_of({.mac = kGuest, .isolation = Isolation::On, .rate = 1U << 20U});
    // The moments are spread over what a port takes on this machine, and a little more.
    auto takes = std::chrono::steady_clock::duration::max();
    for (int time = 0; time < 3; ++time) {
      const auto begun = std::chrono::steady_clock::now();
      make_kept_port(port);
      takes = std::min(takes, std::chrono::steady_clock::now() - begun);
      delete_kept_port("jane0");
    }
    const auto step = takes * 5 / 4 / kRounds;
    int half_made = 0;
    // More where that hit none.
    for (int round = 0; round < kRounds || (half_made == 0 && round < 10 * kRounds); ++round) {
      std::array<int, 2> ready{};
      ASSERT_EQ(::pipe(ready.data()), 0);
      const pid_t maker = ::fork();
      if (maker == 0) {
        if (::write(ready[1], "!", 1) == 1) {
          make_kept_port(port);
        }
        ::pause();
      }
      char byte = 0;
      ASSERT_EQ(::read(ready[0], &byte, 1), 1);
      std::this_thread::sleep_for(round % kRounds * step);
      ::kill(maker, SIGKILL);
      ::waitpid(maker, nullptr, 0);
      ::close(ready[0]);
      ::close(ready[1]);
      const bool made = Rtnetlink{}.find("jane0").has_value();
      const bool left = !nft_tables().empty() || Rtnetlink{}.links().size() > 2;  // besides lo and br0
      half_made += left && !made ? 1 : 0;
      if (!made && round % 2 != 0) {
        make_kept_port(port);
        ASSERT_EQ(nft_tables().size(), 1U) << round;
        ASSERT_EQ(Rtnetlink{}.links().size(), 4U) << round;
        delete_kept_port("jane0");
      } else if (left) {
        delete_kept_port("jane0");
      }
      expect_nothing_left();
      ASSERT_FALSE(testing::Test::HasFailure()) << round;
    }
    EXPECT_GT(half_made, 0);
  });
}

TEST(KeptPort, OfAVmThatRunsIsNotDeleted) {
  in_namespace([] {
    make_bridge();
    const auto guest = Tap::on_bridge({.bridge = "br0", .guest = kGuest});
    EXPECT_THAT(error_of([&] { delete_kept_port(guest->name()); }), HasSubstr("mlt0: belongs to a VM that runs"));
    EXPECT_TRUE(Rtnetlink{}.find("mlt0"));
    EXPECT_TRUE(guard_of("mlt0"));
  });
}

TEST(KeptPort, OfAnotherHostIsMadeFromWhatItsOwnShows) {
  in_namespace([] {
    const bool vlans = test::shell_says("ip link add br0 type bridge vlan_filtering 1 2>/dev/null");
    run_shell((vlans ? "" : "ip link add br0 type bridge && ") + std::string{"ip link set br0 up"});
    const test::TempDir directory;
    const auto file = directory.file("policy.json");
    const auto martlet = [](const std::string& words) {
      const auto outcome = test::run({.command = {"sh", "-c", "exec " MARTLET_PROGRAM " net " + words}});
      EXPECT_EQ(outcome.exit_code, 0) << words << outcome;
      return outcome.out;
    };
    martlet(std::string{"port p --owner 65534 rate=3M burst=256K isolated=on mtu=1400 pcap=a,,b.pcapng"} +
            (vlans ? " vlans=10-20+30,native=15" : ""));
    martlet("show --port p > " + file);
    const auto shown = test::read_file(file);
    martlet("port p --delete");
    expect_nothing_left();
    martlet("port q --owner 65534 policy=" + file);
    EXPECT_EQ(martlet("show --port q"), shown);
    EXPECT_THAT(shown, AllOf(HasSubstr("\"mac\""), HasSubstr("a,b.pcapng"), HasSubstr(vlans ? "10-20+30" : "")));
    martlet("port q --delete");
    expect_nothing_left();
  });
}

TEST(KeptPort, HoldsTheRateEachWay) {
  in_namespace([] {
    make_bridge();
    constexpr std::uint64_t kRate = 512U << 10U;  // the lab can overtake it, too
    make_kept_port(port_of({.mac = kGuest, .rate = kRate}));
    const auto guest = Tap::open({.name = "jane0"});
    const auto far = Tap::on_bridge({.bridge = "br0", .guest = kOther});
    const auto flood = [&](Tap& from, const MacAddress& sender) {
      for (int i = 0; i < 5; ++i) {
        EXPECT_TRUE(send(from, {.from = sender, .text = "x", .size = 1514}));
      }
      (void)arrived(*guest);
      (void)arrived(*far);
    };
    EXPECT_NEAR(measured(far->name(), [&] { flood(*guest, kGuest); }) / kRate, 1, 0.05);
    EXPECT_NEAR(measured("jane0", [&] { flood(*far, kOther); }) / kRate, 1, 0.05);
    EXPECT_TRUE(send(*guest, {.from = kOther, .text = "foreign"}));
    EXPECT_TRUE(send(*guest, {.from = kGuest, .tags = {0x8100000a}, .text = "tagged"}));
    EXPECT_EQ(guard_of("jane0")->foreign_senders, 1U);
    EXPECT_EQ(guard_of("jane0")->foreign_vlans, 1U);
  });
}

TEST(KeptPort, IsNotHalfMade) {
  in_namespace([] {
    make_bridge();
    run_shell("ip tuntap add dev others mode tap");
    const std::pair<KeptPort, const char*> cases[] = {
        {{.name = "jane0", .bridge = "br7"}, "net port jane0: --bridge br7: there is no such interface"},
        {{.name = "jane0", .bridge = "lo"}, "is the loopback interface, not a bridge"},
        {{.name = "a-name-much-too-long", .bridge = "br0"}, "too long"},
        {{.name = "%d", .bridge = "br0"}, "not a name"},
        {{.name = "others", .bridge = "br0"}, "others: is already there"},
        {{.name = "jane0", .bridge = "br0", .policy = {.mtu = 9000}}, "mtu=9000: the network carries 1500"},
    };
    for (const auto& [port, why] : cases) {
      EXPECT_THAT(error_of([&, it = &port] { make_kept_port(*it); }), HasSubstr(why));
    }
    EXPECT_THAT(error_of([] { delete_kept_port("others"); }), HasSubstr("was not made by martlet net port"));
    EXPECT_THAT(error_of([] { delete_kept_port("br0"); }), HasSubstr("was not made by martlet net port"));
    run_shell("ip link delete others");
    expect_nothing_left();
  });
}

}  // namespace
}  // namespace martlet
