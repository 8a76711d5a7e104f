// What a guest may send: frames as a hostile one would make them, through the TAP that Martlet gives it.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <stop_token>
#include <thread>

#include "net/port_guard.h"
#include "net/tap.h"
#include "tests/ports/frames.h"
#include "tests/ports/left.h"
#include "tests/support/namespace.h"

namespace martlet {
namespace {

using test::arrived, test::guard_of, test::in_namespace, test::run_shell, test::send;
using testing::ElementsAre, testing::HasSubstr;

constexpr MacAddress kGuest = {0x52, 0x54, 0, 0x12, 0x34, 0x56};
constexpr MacAddress kOther = {0x52, 0x54, 0, 0x12, 0x34, 0x57};
constexpr const char* kBridge = "ip link add br0 type bridge mcast_snooping 0 && ip link set br0 up";

std::unique_ptr<Tap> port_of(const MacAddress& guest, Spoof spoof = Spoof::Deny) {
  return Tap::on_bridge({.bridge = "br0", .guest = guest, .policy = {.spoof = spoof}});
}

TEST(PortGuard, OnlyTheGuestsOwnFramesGetThrough) {
  in_namespace([] {
    run_shell(kBridge);
    const auto guest = port_of(kGuest);
    const auto far = port_of(kOther);
    EXPECT_TRUE(send(*guest, {.from = kGuest, .text = "own"}));
    for (std::size_t byte = 0; byte < kGuest.size(); ++byte) {
      auto foreign = kGuest;
      foreign[byte] ^= 0x10U;
      EXPECT_TRUE(send(*guest, {.from = foreign, .text = "foreign"}));
    }
    EXPECT_TRUE(send(*guest, {.from = {}, .text = "nobody's"}));
    EXPECT_TRUE(send(*guest, {.from = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, .text = "everybody's"}));
    EXPECT_TRUE(send(*guest, {.from = kOther, .text = "the neighbour's"}));
    EXPECT_TRUE(send(*guest, {.from = kGuest, .text = "long", .size = 1514}));
    EXPECT_THAT(arrived(*far), ElementsAre("own", "long"));
    const auto state = guard_of(guest->name());
    ASSERT_TRUE(state);
    EXPECT_EQ(state->guest, kGuest);
    EXPECT_EQ(state->foreign_senders, 9U);
    EXPECT_EQ(state->foreign_vlans, 0U);
    EXPECT_EQ(guard_of(far->name())->foreign_senders, 0U);
  });
}

TEST(PortGuard, NoTagGetsThroughWithoutVlans) {
  in_namespace([] {
    run_shell(kBridge);
    const auto guest = port_of(kGuest);
    const auto far = port_of(kOther);
    for (const std::uint32_t id : {0U, 1U, 10U, 0xfffU, 0xe00aU}) {  // the last with a priority
      EXPECT_TRUE(send(*guest, {.from = kGuest, .tags = {0x81000000U | id}, .text = "customer"}));
      EXPECT_TRUE(send(*guest, {.from = kGuest, .tags = {0x88a80000U | id}, .text = "service"}));
      EXPECT_TRUE(send(*guest, {.from = kGuest, .tags = {0x88a80000U | id, 0x8100000a}, .text = "both"}));
    }
    EXPECT_TRUE(send(*guest, {.from = kGuest, .text = "none"}));
    EXPECT_THAT(arrived(*far), ElementsAre("none"));
    EXPECT_EQ(guard_of(guest->name())->foreign_vlans, 15U);
  });
}

TEST(PortGuard, ATrunkHasItsOwnTagsOnly) {
  in_namespace([] {
    run_shell(kBridge);
    const auto trunk = port_of(kGuest, Spoof::Allow);
    const auto far = port_of(kOther, Spoof::Allow);
    const PortGuard guard{{.name = trunk->name(),
                           .index = Rtnetlink{}.find(trunk->name())->index,
                           .guest = kGuest,
                           .vlans = {.ranges = {{10, 20}, {0x101, 0x101}}}},
                          PortGuard::Life::Socket};
    for (const std::uint32_t inner : {0x8100000bU, 0x81000014U, 0x88a8000aU}) {  // a tag in a tag of its own
      EXPECT_TRUE(send(*trunk, {.from = kGuest, .tags = {0x8100000a, inner}, .text = "hop"}));
      EXPECT_TRUE(send(*trunk, {.from = kGuest, .tags = {0x8100600a, inner, 0x8100000a}, .text = "hop"}));
    }
    for (const std::uint32_t id : {0U, 9U, 10U, 15U, 20U, 21U, 0x100U, 0x101U, 0x102U, 0xfffU, 0x6014U}) {
      EXPECT_TRUE(send(*trunk, {.from = kGuest, .tags = {0x81000000U | id}, .text = "it"}));
      EXPECT_TRUE(send(*trunk, {.from = kOther, .tags = {0x81000000U | id}, .text = "foreign"}));
      EXPECT_TRUE(send(*trunk, {.from = kGuest, .tags = {0x88a80000U | id}, .text = "service"}));
    }
    EXPECT_TRUE(send(*trunk, {.from = kGuest, .text = "untagged"}));  // which the bridge may know, or not
    EXPECT_THAT(arrived(*far), ElementsAre("c00a it", "c00f it", "c014 it", "c101 it", "c014 it", "untagged"));
    const auto state = guard_of(trunk->name());
    ASSERT_TRUE(state);
    EXPECT_EQ(state->foreign_senders, 11U);
    EXPECT_EQ(state->foreign_vlans, 6U + 11U + 6U);
  });
}

TEST(PortGuard, SpoofingIsAllowedOnRequest) {
  in_namespace([] {
    run_shell(kBridge);
    const auto guest = port_of(kGuest, Spoof::Allow);
    const auto far = port_of(kOther);
    EXPECT_FALSE(guard_of(guest->name()));
    EXPECT_TRUE(send(*guest, {.from = kOther, .text = "foreign"}));
    EXPECT_TRUE(send(*guest, {.from = kGuest, .tags = {0x8100000a}, .text = "tagged"}));
    EXPECT_THAT(arrived(*far), ElementsAre("foreign", "c00a tagged"));
  });
}

TEST(PortGuard, GoesWithItsProcessOrIsTakenAwayByName) {
  in_namespace([] {
    run_shell(kBridge);
    std::array<int, 2> ready{};
    ASSERT_EQ(::pipe(ready.data()), 0);
    const pid_t owner = ::fork();
    if (owner == 0) {
      const auto guest = port_of(kGuest);
      ::_exit(::write(ready[1], "!", 1) == 1 ? ::pause() : 1);
    }
    char byte = 0;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    ASSERT_EQ(nft_tables().size(), 1U);
    const int index = Rtnetlink{}.find("mlt0")->index;
    EXPECT_THROW(PortGuard::remove("mlt0", index), HostError);  // it is not ours
    ::kill(owner, SIGKILL);
    ::waitpid(owner, nullptr, 0);
    EXPECT_THAT(nft_tables(), ElementsAre());
    EXPECT_FALSE(Rtnetlink{}.find("mlt0"));

    run_shell("ip tuntap add dev a mode tap && ip tuntap add dev a-1 mode tap");
    for (const std::string name : {"a", "a-1"}) {
      const PortGuard kept{{.name = name, .index = Rtnetlink{}.find(name)->index, .guest = kGuest},
                           PortGuard::Life::Kept};
    }
    EXPECT_EQ(nft_tables().size(), 2U);
    Rtnetlink netlink;
    PortGuard::remove("a", netlink.find("a")->index);
    EXPECT_FALSE(guard_of("a"));
    EXPECT_TRUE(guard_of("a-1"));
    run_shell("ip link delete a-1");  // behind our back
    EXPECT_THAT(PortGuard::indexes("a"), ElementsAre());
    const auto left = PortGuard::indexes("a-1");
    ASSERT_EQ(left.size(), 1U);
    PortGuard::remove("a-1", left[0]);
    PortGuard::remove("a-1", left[0]);
    EXPECT_THAT(nft_tables(), ElementsAre());
  });
}

TEST(PortGuard, IsReadWhileOthersChangeTheirs) {
  in_namespace([] {
    run_shell(kBridge);
    const auto guest = port_of(kGuest);
    run_shell("ip tuntap add dev a mode tap");
    const int other = Rtnetlink{}.find("a")->index;
    const std::jthread others{[&](const std::stop_token& stop) {
      while (!stop.stop_requested()) {
        const PortGuard guard{{.name = "a", .index = other, .guest = kOther}, PortGuard::Life::Kept};
        PortGuard::remove("a", other);
      }
    }};
    for (int i = 0; i < 1000; ++i) {
      const auto state = guard_of(guest->name());
      ASSERT_TRUE(state) << i;
      ASSERT_EQ(state->guest, kGuest);
      ASSERT_EQ(PortGuard::indexes(guest->name()).size(), 1U);
    }
  });
}

TEST(PortGuard, WithoutPrivilegeItSaysWhatIsMissing) {
  in_namespace([] {
    run_shell("ip tuntap add dev a mode tap");
    const int index = Rtnetlink{}.find("a")->index;
    ASSERT_EQ(::setresuid(65534, 65534, 65534), 0);
    EXPECT_THAT(test::error_of([&] {
                  const PortGuard guard{{.name = "a", .index = index, .guest = kGuest}, PortGuard::Life::Socket};
                }),
                HasSubstr("needs CAP_NET_ADMIN"));
  });
}

}  // namespace
}  // namespace martlet
