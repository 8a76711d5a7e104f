// Many at once, and killed at any moment.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "net/tap.h"
#include "tests/net/switches.h"
#include "tests/support/subprocess.h"

namespace martlet {
namespace {

using namespace test;

TEST(Switch, ThirtyTwoPortsComeAndGoAtOnce) {
  in_namespace([] {
    make({.name = "br0"});
    constexpr int kPorts = 32;
    std::vector<std::string> troubles(kPorts);
    std::vector<std::jthread> threads;
    for (std::size_t i = 0; i < kPorts; ++i) {
      threads.emplace_back([&trouble = troubles[i], i] {
        try {
          for (int turn = 0; turn < 3; ++turn) {
            const auto tap =
                Tap::on_bridge({.bridge = "br0", .guest = {0x52, 0x54, 0, 0, 0, static_cast<std::uint8_t>(i)}});
            if (Rtnetlink{}.find(tap->name())->master == 0) {
              trouble = "is no port";
            }
          }
        } catch (const std::exception& error) {
          trouble = error.what();
        }
      });
    }
    threads.clear();
    EXPECT_THAT(troubles, testing::Each(""));
    EXPECT_EQ(output_of("ip -br link show master br0"), "");
    unmake("br0");
  });
}

TEST(Switch, KilledAtAnyMomentItIsDeletedOrMadeAllTheSame) {
  in_namespace([] {
    furnish_uplink();
    const auto before = addresses_and_routes();
    std::mt19937 random{4711};
    const std::vector<std::vector<std::string>> kinds{
        {"--mode", "external", "--uplink", "eth0", "--move-default-route"},
        {"--address", "10.7.0.1/24", "--dhcp", "--nat"},
        {"--mode", "private"}};
    const auto begin = std::chrono::steady_clock::now();
    make(external());
    const auto takes = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
    unmake("br0");
    int half_made = 0;
    for (int turn = 0; turn < 51; ++turn) {
      std::vector<std::string> command{MARTLET_PROGRAM, "net", "create", "br0"};
      const auto& kind = kinds[static_cast<std::size_t>(turn) % kinds.size()];
      command.insert(command.end(), kind.begin(), kind.end());
      {
        Subprocess martlet{{.command = command}};
        std::this_thread::sleep_for(takes * (random() % 100) / 50);
      }  // SIGKILL
      const auto link = Rtnetlink{}.find("br0");
      half_made += link && !(read_mark(*link) && read_mark(*link)->finished) ? 1 : 0;
      if (turn % 2 == 0) {  // what is half made is no obstacle
        const auto outcome = run({.command = command});
        EXPECT_EQ(outcome.exit_code, 0) << outcome;
      }
      const auto outcome = run({.command = {MARTLET_PROGRAM, "net", "delete", "br0"}});
      EXPECT_EQ(outcome.exit_code, 0) << outcome;
      ASSERT_FALSE(there_is("br0"));
      ASSERT_EQ(difference(before, addresses_and_routes()), "") << "turn " << turn;
      ASSERT_EQ(servers(), "");
    }
    EXPECT_GT(half_made, 0) << "no moment was hit";
  });
}

}  // namespace
}  // namespace martlet
