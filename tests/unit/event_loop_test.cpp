#include "vmm/base/event_loop.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <functional>
#include <future>
#include <thread>
#include <utility>

#include "vmm/base/ending.h"
#include "vmm/base/error.h"

namespace martlet {
namespace {

using namespace std::chrono_literals;

/// A thread that begins once the loop runs.
class Guest {
 public:
  Guest(EventLoop& loop, std::function<void()> body)
      : runs_{loop, [this] { go_.set_value(); }}, thread_{[this, body = std::move(body)] {
          go_.get_future().wait();
          body();
        }} {
    runs_.start_once(1ns);
  }
  void join() { thread_.join(); }

 private:
  std::promise<void> go_;
  Timer runs_;
  std::thread thread_;
};

TEST(EventLoop, CallsHandlersUntilStopped) {
  EventLoop loop;
  const Fd event = make_eventfd();
  int calls = 0;
  ASSERT_TRUE(loop.watch(event.get(), EPOLLIN, [&](std::uint32_t) {
    drain_counter(event.get());
    if (++calls == 3) {
      loop.stop();
    } else {
      signal_eventfd(event.get());
    }
  }));
  signal_eventfd(event.get());
  loop.run();
  EXPECT_EQ(calls, 3);
  calls = 1;
  signal_eventfd(event.get());
  loop.run();  // again
  EXPECT_EQ(calls, 3);
}

TEST(EventLoop, AHandlerMayUnwatchItselfAndOthers) {
  EventLoop loop;
  const Fd a = make_eventfd();
  const Fd b = make_eventfd();
  int calls = 0;
  const auto once = [&](std::uint32_t) {
    ++calls;
    loop.unwatch(a.get());
    loop.unwatch(b.get());
    loop.stop();
  };
  loop.watch(a.get(), EPOLLIN, once);
  loop.watch(b.get(), EPOLLIN, once);
  signal_eventfd(a.get());
  signal_eventfd(b.get());
  loop.run();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, SaysWhichFilesItCannotWaitFor) {
  EventLoop loop;
  const Fd regular = open_file("/proc/self/exe", O_RDONLY);
  EXPECT_FALSE(loop.watch(regular.get(), EPOLLIN, [](std::uint32_t) {}));
  EXPECT_THROW(loop.watch(-1, EPOLLIN, [](std::uint32_t) {}), HostError);
}

TEST(Timer, FiresOnceOrPeriodicallyAndCanBeCancelled) {
  EventLoop loop;
  int ticks = 0;
  Timer never{loop, [&] { ADD_FAILURE() << "cancelled, yet it fired"; }};
  never.start_once(1ms);
  never.cancel();
  Timer periodic{loop, [&] { ++ticks; }};
  periodic.start_periodic(1ms);
  Timer last{loop, [&] { loop.stop(); }};
  last.start_once(20ms);
  loop.run();
  EXPECT_GE(ticks, 1);
}

TEST(StopLine, TheFirstRequestWins) {
  StopLine stop;
  EXPECT_FALSE(stop.requested());
  stop.request({.kind = Ending::Kind::GuestExit, .code = 7});
  stop.request({.kind = Ending::Kind::Timeout});
  ASSERT_TRUE(stop.requested());
  EXPECT_EQ(stop.ending()->kind, Ending::Kind::GuestExit);
  EXPECT_EQ(stop.ending()->code, 7);
  EXPECT_EQ(drain_counter(stop.fd()), 1U);
}

TEST(EventLoop, DoesCallsOfOtherThreadsOnItsOwn) {
  EventLoop loop;
  std::thread::id where;
  int calls = 0;
  loop.call([&] { ++calls; });  // nobody runs it: here and now
  EXPECT_EQ(calls, 1);
  Guest other{loop, [&] {
                for (int i = 0; i < 1000; ++i) {
                  loop.call([&] {
                    where = std::this_thread::get_id();
                    loop.call([&] { ++calls; });  // from the loop itself: at once
                  });
                }
                loop.call([&] { loop.stop(); });
                loop.call([&] { ++calls; });  // whether it still runs or not
              }};
  loop.run();
  other.join();
  EXPECT_EQ(calls, 1002);
  EXPECT_EQ(where, std::this_thread::get_id());
}

TEST(EventLoop, CallsAreOneAtATimeThoughNobodyRunsIt) {
  EventLoop loop;
  int calls = 0;  // unguarded: TSan would tell
  const auto many = [&] {
    for (int i = 0; i < 1000; ++i) {
      loop.call([&] { ++calls; });
    }
  };
  std::thread a{many};
  std::thread b{many};
  a.join();
  b.join();
  EXPECT_EQ(calls, 2000);
}

TEST(EventLoop, ACallThatThrowsEndsTheLoopAndNobodyWaitsForEver) {
  EventLoop loop;
  const auto fail = [] { throw HostError{"epoll: no more"}; };
  EXPECT_THROW(loop.call(fail), HostError);
  Guest other{loop, [&] { loop.call(fail); }};
  EXPECT_THROW(loop.run(), HostError);
  other.join();
  int calls = 0;
  std::thread later{[&] { loop.call([&] { ++calls; }); }};
  later.join();
  EXPECT_EQ(calls, 1);
}

}  // namespace
}  // namespace martlet
