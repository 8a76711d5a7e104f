// Many at once, and killed at any moment.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "net/nft.h"
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
    const auto succeeds = [](const std::vector<std::string>& command) {
      const auto begin = std::chrono::steady_clock::now();
      const auto outcome = run({.command = command});
      EXPECT_EQ(outcome.exit_code, 0) << outcome;
      return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin);
    };
    const auto creation_of = [](const std::vector<std::string>& kind) {
      std::vector<std::string> command{MARTLET_PROGRAM, "net", "create", "br0"};
      command.insert(command.end(), kind.begin(), kind.end());
      return command;
    };
    const std::vector<std::string> removal{MARTLET_PROGRAM, "net", "delete", "br0"};
    auto creation_takes = std::chrono::microseconds::max();
    auto removal_takes = creation_takes;
    for (int time = 0; time < 3; ++time) {
      creation_takes = std::min(creation_takes, succeeds(creation_of(kinds.front())));
      removal_takes = std::min(removal_takes, succeeds(removal));
    }
    const auto killed = [&](const std::vector<std::string>& command, std::chrono::microseconds takes) {
      {
        Subprocess martlet{{.command = command}};
        std::this_thread::sleep_for(takes * (random() % 100) / 100);
      }  // SIGKILL
      const auto link = Rtnetlink{}.find("br0");
      return link && !(read_mark(*link) && read_mark(*link)->finished) ? 1 : 0;  // 1: halfway
    };
    const bool lab = std::getenv("MARTLET_LAB") != nullptr;  // where an uplink's 4094 VLANs take seconds
    const int turns = lab ? 8 : 51;
    int half_made = 0;
    int half_deleted = 0;
    const auto missed = [&] { return !lab && (half_made == 0 || half_deleted == 0); };
    for (int turn = 0; turn < turns || (missed() && turn < 10 * turns); ++turn) {
      const auto command = creation_of(kinds[static_cast<std::size_t>(turn) % kinds.size()]);
      half_made += killed(command, creation_takes);
      const int how = turn % 4;
      if (how >= 1) {  // what is half made is no obstacle
        succeeds(command);
      }
      if (how >= 2) {
        half_deleted += killed(removal, removal_takes);
      }
      if (how == 3) {  // nor what is half deleted
        succeeds(command);
      }
      succeeds(removal);
      ASSERT_FALSE(there_is("br0"));
      ASSERT_EQ(difference(before, addresses_and_routes()), "") << "turn " << turn;
      ASSERT_THAT(nft_tables(), testing::IsEmpty()) << "turn " << turn;
      ASSERT_EQ(servers(), "");
    }
    if (!lab) {
      EXPECT_GT(half_made, 0) << "no moment was hit";
      EXPECT_GT(half_deleted, 0) << "no moment was hit";
    }
  });
}

// Half-way, an uplink's addresses are nowhere, and who is logged in by them stays outside.
TEST(Switch, EndsWhatItBeganBeforeASignalEndsIt) {
  in_namespace([] {
    furnish_uplink();
    const auto before = addresses_and_routes();
    const int turns = std::getenv("MARTLET_LAB") != nullptr ? 2 : 12;  // there an uplink's 4094 VLANs take seconds
    for (int turn = 0; turn < turns; ++turn) {
      Subprocess creation{{.command = {MARTLET_PROGRAM, "net", "create", "br0", "--mode", "external", "--uplink",
                                       "eth0", "--move-default-route"}}};
      ASSERT_TRUE(creation.wait_until([] { return there_is("br0"); })) << creation.wait();
      creation.send_signal(turn % 2 == 0 ? SIGTERM : SIGINT);
      const auto ended = creation.wait();
      EXPECT_TRUE(ended.signal == SIGTERM || ended.signal == SIGINT || ended.exit_code == 0) << ended;
      const auto link = Rtnetlink{}.find("br0");
      ASSERT_TRUE(link && read_mark(*link) && read_mark(*link)->finished) << ended;
      unmake("br0");
      ASSERT_EQ(difference(before, addresses_and_routes()), "");
    }
  });
}

}  // namespace
}  // namespace martlet
