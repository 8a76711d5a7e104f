// Who rests and who goes on, where a debugger holds some vCPUs and others only look.
#include "vmm/standstill.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace martlet {
namespace {

using ::testing::ElementsAre;

/// A vCPU's thread that does nothing but what it is asked to.
class IdleCpu {
 public:
  ~IdleCpu() {
    stop_.request({.kind = Ending::Kind::Quit});
    brake_.release();
    thread_.join();
  }
  [[nodiscard]] Brake& brake() { return brake_; }
  /// It meets a debug exit.
  void meet_exit() { meets_ = true; }
  /// It looks at nothing meanwhile.
  void set_busy(bool busy) {
    wanted_busy_ = busy;
    while (busy_ != busy) {
      std::this_thread::yield();
    }
  }
  [[nodiscard]] bool rests() const { return brake_.at_rest(); }
  /// Until it has run since.
  void await_run() const {
    const auto before = turns_.load();
    while (turns_ < before + 2) {
      std::this_thread::yield();
    }
  }

 private:
  void run() {
    while (!stop_.requested()) {
      busy_ = wanted_busy_.load();
      if (busy_) {
        continue;
      }
      if (meets_.exchange(false)) {
        static_cast<void>(brake_.pull_at(Debug{}));
      }
      brake_.rest(stop_);
      ++turns_;
    }
  }

  Brake brake_;
  StopLine stop_;
  std::atomic<bool> meets_ = false;
  std::atomic<bool> wanted_busy_ = false;
  std::atomic<bool> busy_ = false;
  std::atomic<std::uint64_t> turns_ = 0;
  std::thread thread_{[this] { run(); }};
};

class StandstillOfTwo : public ::testing::Test {
 protected:
  void TearDown() override {
    on_loop([this] { loop_.stop(); });
    thread_.join();
  }
  void on_loop(const std::function<void()>& task) { loop_.call(task); }
  /// Until all of `told` have been called, in this order.
  void await(const std::vector<std::string>& told) {
    bool enough = false;
    while (!enough) {
      std::this_thread::yield();
      on_loop([&] { enough = told_.size() >= told.size(); });
    }
    on_loop([&] { EXPECT_EQ(std::exchange(told_, {}), told); });
  }
  /// Is called at rest only.
  std::function<void()> tells(std::string who) {
    return [this, who = std::move(who)] {
      EXPECT_TRUE(cpus_[0].rests() && cpus_[1].rests()) << who;
      told_.push_back(who);
    };
  }
  /// Those that were let go since this was asked last.
  std::vector<std::size_t> released() {
    std::vector<std::size_t> cpus;
    on_loop([&] { cpus = std::exchange(released_, {}); });
    return cpus;
  }

  std::array<IdleCpu, 2> cpus_;
  EventLoop loop_;
  // On the loop's thread
  std::vector<std::size_t> released_;
  std::vector<std::string> told_;
  Standstill standstill_{
      loop_,
      {&cpus_[0].brake(), &cpus_[1].brake()},
      {.kick = [](std::size_t) {}, .releasing = [this](std::size_t cpu) { released_.push_back(cpu); }}};

 private:
  std::thread thread_{[this] { loop_.run(); }};
};

TEST_F(StandstillOfTwo, WhoLooksLetsAllGo) {
  on_loop([&] { standstill_.look(tells("looks")); });
  await({"looks"});
  EXPECT_THAT(released(), ElementsAre(0, 1));
  EXPECT_FALSE(standstill_.holds_any());
  cpus_[0].await_run();
  cpus_[1].await_run();
}

TEST_F(StandstillOfTwo, WhoLooksLetsOnlyThoseGoThatNobodyHolds) {
  on_loop([&] { standstill_.hold(tells("holds")); });
  await({"holds"});
  on_loop([&] {
    EXPECT_TRUE(standstill_.holds_all());
    standstill_.release(1);
    EXPECT_FALSE(standstill_.holds_all());
  });
  EXPECT_THAT(released(), ElementsAre(1));
  cpus_[1].await_run();
  on_loop([&] { standstill_.look(tells("looks")); });
  await({"looks"});
  EXPECT_THAT(released(), ElementsAre(1));
  cpus_[1].await_run();
  EXPECT_TRUE(cpus_[0].rests());
  on_loop([&] { EXPECT_TRUE(standstill_.holds_any()); });
}

TEST_F(StandstillOfTwo, NobodyGoesWhileOneLooksAndAnotherHolds) {
  for (const bool look_first : {false, true}) {
    SCOPED_TRACE(look_first);
    cpus_[0].set_busy(true);
    on_loop([&] {
      if (look_first) {
        standstill_.look(tells("looks"));
        standstill_.hold(tells("holds"));
      } else {
        standstill_.hold(tells("holds"));
        standstill_.look(tells("looks"));
      }
    });
    cpus_[0].set_busy(false);
    await({"looks", "holds"});  // in this order: who holds may let vCPUs go at once
    EXPECT_THAT(released(), ElementsAre());
    on_loop([&] {
      EXPECT_TRUE(standstill_.holds_all());
      standstill_.release(0);
      standstill_.release(1);
    });
    EXPECT_THAT(released(), ElementsAre(0, 1));
    cpus_[0].await_run();
    cpus_[1].await_run();
  }
}

// The debugger holds once it hears of an exit; whoever looks meanwhile does not let its vCPU go before that.
TEST_F(StandstillOfTwo, AnExitIsHeardOfBeforeAnybodyLooks) {
  on_loop([&] {
    standstill_.on_exit([this](std::size_t cpu, const Exit&) {
      told_.push_back("exit of " + std::to_string(cpu));
      standstill_.hold(tells("holds"));
    });
    cpus_[1].meet_exit();
    while (!cpus_[1].rests()) {  // and the loop has not noticed
      std::this_thread::yield();
    }
    standstill_.look(tells("looks"));
  });
  await({"exit of 1", "looks", "holds"});
  EXPECT_THAT(released(), ElementsAre());
  on_loop([&] { EXPECT_TRUE(standstill_.holds_all()); });
}

}  // namespace
}  // namespace martlet
