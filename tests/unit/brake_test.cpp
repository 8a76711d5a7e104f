#include "vmm/kvm/brake.h"

#include <gtest/gtest.h>
#include <poll.h>

#include <atomic>
#include <thread>

namespace martlet {
namespace {

void await(int fd) {
  pollfd wanted{.fd = fd, .events = POLLIN, .revents = 0};
  ASSERT_EQ(::poll(&wanted, 1, 10'000), 1) << "no rest within ten seconds";
  drain_counter(fd);
}

/// A vCPU thread that does nothing but look whether it shall rest.
class Looper {
 public:
  explicit Looper(Brake& brake)
      : thread_{[this, &brake] {
          while (!stop_.requested()) {
            brake.rest(stop_);
            ++turns_;
          }
        }} {}
  void end(Brake& brake) {
    stop_.request({.kind = Ending::Kind::Quit});
    brake.release();
    thread_.join();
  }
  [[nodiscard]] std::uint64_t turns() const { return turns_; }
  [[nodiscard]] StopLine& stop() { return stop_; }

 private:
  StopLine stop_;
  std::atomic<std::uint64_t> turns_ = 0;
  std::thread thread_;
};

TEST(Brake, HoldsTheThreadUntilItIsReleased) {
  Brake brake;
  Looper looper{brake};
  EXPECT_FALSE(brake.at_rest());
  brake.pull();
  await(brake.fd());
  EXPECT_TRUE(brake.at_rest());
  const auto turns = looper.turns();
  std::this_thread::yield();
  EXPECT_EQ(looper.turns(), turns);
  brake.release();
  while (looper.turns() == turns) {
    std::this_thread::yield();
  }
  EXPECT_FALSE(brake.at_rest());
  looper.end(brake);
}

TEST(Brake, PulledAgainBeforeTheThreadWentOnIsStillHeardOf) {
  Brake brake;
  Looper looper{brake};
  for (int i = 0; i < 2000; ++i) {
    brake.pull();
    await(brake.fd());
    ASSERT_TRUE(brake.at_rest()) << i;
    brake.release();
  }
  looper.end(brake);
}

TEST(Brake, TheEndOfTheVmEndsTheRest) {
  Brake brake;
  Looper looper{brake};
  brake.pull();
  await(brake.fd());
  looper.end(brake);  // joins, or the test hangs
}

TEST(Brake, OnlyADebuggerTakesExits) {
  Brake brake;
  EXPECT_FALSE(brake.pull_at(Shutdown{}));
  brake.set_debugged(true);
  kvm_debug_exit_arch exit{};
  exit.pc = 0x1234;
  EXPECT_TRUE(brake.pull_at(Debug{.arch = exit}));
  const auto taken = brake.take_exit();
  ASSERT_TRUE(taken && std::holds_alternative<Debug>(*taken));
  EXPECT_EQ(std::get<Debug>(*taken).arch.pc, 0x1234U);
  EXPECT_FALSE(brake.take_exit());
}

}  // namespace
}  // namespace martlet
