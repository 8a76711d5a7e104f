// Macvtaps: who hears whom in each mode, what is left of them, what is refused.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <filesystem>
#include <thread>

#include "net/kept_port.h"
#include "net/options.h"
#include "net/tap.h"
#include "tests/ports/frames.h"
#include "tests/support/namespace.h"

namespace martlet {
namespace {

using test::arrived, test::in_namespace, test::run_shell, test::send;
using testing::ElementsAre, testing::HasSubstr, testing::IsEmpty;
using namespace std::chrono_literals;

constexpr MacAddress kFirst = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
constexpr MacAddress kSecond = {0x52, 0x54, 0, 0x12, 0x34, 0x57};
constexpr MacAddress kOutside = {0x52, 0x54, 0, 0x12, 0x34, 0x58};

// uplink is the host's interface; the bridge behind its other end is the switch outside.
constexpr const char* kWorld =
    "ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up && "
    "ip link add uplink type veth peer name outside && ip link set outside master br0 && "
    "ip link set outside up && ip link set uplink up && "
    "until bridge link show dev outside | grep -q 'state forwarding'; do sleep 0.01; done";

std::unique_ptr<Tap> on_uplink(const MacAddress& guest, MacvtapMode mode, std::uint16_t pairs = 1) {
  return Tap::on_interface({.below = "uplink", .mode = mode, .guest = guest, .pairs = pairs});
}

/// Nothing stands on it: else a passthru macvtap, which must be alone, could not.
bool is_free(const std::string& interface) {
  const auto error = test::error_of([&] {
    static_cast<void>(make_macvtap({.below = interface, .mode = MacvtapMode::Passthrough, .guest = kOutside}));
  });
  return error == "no error";
}
/// The kernel clears up after a namespace, or a process, in its own time.
bool becomes_free(const std::string& interface) {
  const auto deadline = std::chrono::steady_clock::now() + 30s;
  while (!is_free(interface)) {
    if (std::chrono::steady_clock::now() > deadline) {
      return false;
    }
  }
  return true;
}

/// All that has arrived up to a frame that says "end", which everybody is to get at last.
std::vector<std::string> until_end(NetBackend& port) {
  std::vector<std::string> all;
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (std::chrono::steady_clock::now() < deadline) {
    pollfd waiting{.fd = port.fd(0), .events = POLLIN, .revents = 0};
    ::poll(&waiting, 1, 100);
    for (auto& text : arrived(port)) {
      if (text == "end") {
        return all;
      }
      all.push_back(std::move(text));
    }
  }
  all.emplace_back("(no end)");
  return all;
}

struct Heard {
  std::vector<std::string> second;
  std::vector<std::string> outside;
};
/// The first guest says something to everybody.
Heard heard(MacvtapMode mode) {
  const auto outside = Tap::on_bridge({.bridge = "br0", .guest = kOutside});
  const auto first = on_uplink(kFirst, mode);
  const auto second = on_uplink(kSecond, mode);
  EXPECT_TRUE(send(*first, {.from = kFirst, .text = "hello"}));
  EXPECT_TRUE(send(*first, {.from = kFirst, .text = "end"}));
  Heard all;
  all.outside = until_end(*outside);
  if (mode == MacvtapMode::Private) {  // nothing of the first's comes, so somebody else ends it
    EXPECT_TRUE(send(*outside, {.from = kOutside, .text = "end"}));
  }
  all.second = until_end(*second);
  return all;
}

TEST(Macvtap, BridgeGuestsHearEachOtherAndOutside) {
  in_namespace([] {
    run_shell(kWorld);
    const auto all = heard(MacvtapMode::Bridge);
    EXPECT_THAT(all.second, ElementsAre("hello"));
    EXPECT_THAT(all.outside, ElementsAre("hello"));
    EXPECT_TRUE(becomes_free("uplink"));
  });
}

TEST(Macvtap, VepaGoesByTheSwitchOutside) {
  in_namespace([] {
    run_shell(kWorld);
    run_shell("bridge link set dev outside hairpin on");
    const auto all = heard(MacvtapMode::Vepa);
    EXPECT_THAT(all.second, ElementsAre("hello"));
    EXPECT_THAT(all.outside, ElementsAre("hello"));
  });
}

TEST(Macvtap, PrivateGuestsHearOutsideAlone) {
  in_namespace([] {
    run_shell(kWorld);
    run_shell("bridge link set dev outside hairpin on");
    const auto all = heard(MacvtapMode::Private);
    EXPECT_THAT(all.second, IsEmpty());
    EXPECT_THAT(all.outside, ElementsAre("hello"));
  });
}

TEST(Macvtap, PassthruIsAloneAndHasTheInterfacesAddress) {
  in_namespace([] {
    run_shell(kWorld);
    run_shell("ip link set uplink address 52:54:00:00:00:09");
    const auto options = parse_net("macvtap=uplink,mode=passthru");
    const auto guest = guest_address(options);
    EXPECT_EQ(to_string(guest), "52:54:00:00:00:09");
    {
      const auto only = on_uplink(guest, MacvtapMode::Passthrough);
      EXPECT_THAT(test::error_of([] { static_cast<void>(on_uplink(kSecond, MacvtapMode::Bridge)); }),
                  HasSubstr("-n macvtap=uplink: "));
      const auto outside = Tap::on_bridge({.bridge = "br0", .guest = kOutside});
      EXPECT_TRUE(send(*outside, {.from = kOutside, .text = "end"}));
      EXPECT_THAT(until_end(*only), IsEmpty());
    }
    EXPECT_TRUE(becomes_free("uplink"));
    EXPECT_EQ(to_string(Rtnetlink{}.find("uplink")->address), "52:54:00:00:00:09");
  });
}

TEST(Macvtap, HasSeveralQueuesAndOffloads) {
  in_namespace([] {
    run_shell(kWorld);
    const auto card = on_uplink(kFirst, MacvtapMode::Bridge, 4);
    EXPECT_EQ(card->pairs(), 4);
    EXPECT_TRUE(card->enable_pairs(4));
    EXPECT_TRUE(card->enable_pairs(2));
    EXPECT_NE(card->offloads() & kTso4, 0U);
    EXPECT_TRUE(card->set_offloads(kChecksum | kTso4));
    EXPECT_EQ(card->mtu(), 1500);
    EXPECT_TRUE(card->refresh_link());
    run_shell("ip link set outside down");
    for (int i = 0; i < 1500 && card->refresh_link(); ++i) {
      std::this_thread::sleep_for(20ms);
    }
    EXPECT_FALSE(card->refresh_link()) << "the link below is the guest's";
  });
}

TEST(Macvtap, NothingIsLeftOfAProcessThatWasKilled) {
  in_namespace([] {
    run_shell(kWorld);
    for (int round = 0; round < 20; ++round) {
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        const auto card = on_uplink(kFirst, MacvtapMode::Bridge);
        ::pause();
        ::_exit(0);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds{round});  // in the middle of it, or after
      ::kill(child, SIGKILL);
      ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    }
    EXPECT_TRUE(becomes_free("uplink"));
    EXPECT_FALSE(std::filesystem::exists("/sys/tap"));
  });
}

TEST(Macvtap, AnAddressIsOneGuests) {
  in_namespace([] {
    run_shell(kWorld);
    const auto card = on_uplink(kFirst, MacvtapMode::Bridge);
    EXPECT_FALSE(is_free("uplink"));
    EXPECT_EQ(test::error_of([] { static_cast<void>(on_uplink(kFirst, MacvtapMode::Bridge)); }),
              "-n macvtap=uplink: another macvtap there has the address 52:54:00:12:34:56 already; give another mac=");
  });
}

TEST(Macvtap, RefusesWhatItCannotStandOn) {
  in_namespace([] {
    run_shell(kWorld);
    const auto refusal = [](const std::string& below) {
      return test::error_of([&] { static_cast<void>(make_macvtap({.below = below, .guest = kFirst})); });
    };
    EXPECT_EQ(refusal("nope"), "-n macvtap=nope: there is no such interface; ip link shows those there are");
    EXPECT_THAT(refusal("lo"), HasSubstr("-n macvtap=lo: is the loopback interface"));
    EXPECT_THAT(refusal("outside"), HasSubstr("is a port of a bridge"));
    EXPECT_THAT(refusal("a-name-that-is-far-too-long"), HasSubstr("-n macvtap=a-name"));
    EXPECT_TRUE(becomes_free("uplink"));
  });
}

TEST(Macvtap, SaysWhatPrivilegeIsMissing) {
  in_namespace([] {
    run_shell(kWorld);
    ASSERT_EQ(::setgid(65534), 0);
    ASSERT_EQ(::setuid(65534), 0);
    EXPECT_THAT(test::error_of([] { static_cast<void>(on_uplink(kFirst, MacvtapMode::Bridge)); }),
                HasSubstr("-n macvtap=uplink: cannot make a network namespace: needs root"));
  });
}

TEST(Macvtap, ItsOptions) {
  const auto options = parse_net("macvtap=eth0,mode=vepa,queues=2");
  EXPECT_EQ(options.macvtap, "eth0");
  EXPECT_EQ(options.macvtap_mode, MacvtapMode::Vepa);
  EXPECT_THAT(test::error_of([] { static_cast<void>(parse_net("macvtap=eth0,mode=odd")); }), HasSubstr("passthru"));
  EXPECT_THAT(test::error_of([] { static_cast<void>(parse_net("tap=tap0,mode=vepa")); }), HasSubstr("macvtap=NAME"));
  EXPECT_THAT(test::error_of([] { static_cast<void>(parse_net("tap=tap0,macvtap=eth0")); }), HasSubstr("exactly one"));
  EXPECT_THAT(test::error_of([] { static_cast<void>(parse_net("macvtap=eth0,vlan=5")); }), HasSubstr("wants bridge="));
}

}  // namespace
}  // namespace martlet
