// Driver and device against each other for long: random requests, random order of completion, on one thread;
// and on two, where the rings' memory ordering has to hold.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "virtqueue_support.h"

namespace martlet::virtio {
namespace {

struct VirtqueueStress : EachRing {
  VirtqueueStress() : EachRing{{.size = 64, .features = kIndirectDescriptors | kEventIndex}} {}
};
INSTANTIATE_TEST_SUITE_P(Rings, VirtqueueStress, each_ring(), name_of_ring);

TEST_P(VirtqueueStress, RandomRequestsInRandomOrder) {
  constexpr std::uint32_t kRequests = 100'000;
  std::mt19937 random{7};
  const auto below = [&](std::uint32_t end) { return static_cast<std::uint32_t>(random() % end); };
  std::map<std::uint16_t, std::pair<std::uint32_t, std::uint32_t>> expected;  // id: number, bytes; bytes 0: refused
  std::vector<DescriptorChain> held;
  std::uint32_t submitted = 0, done = 0, refused = 0;
  while (done < kRequests) {
    const auto what = below(3);
    if (what == 0 && submitted < kRequests && driver.free_descriptors() >= 8) {
      auto chain = driver.chain();
      if (below(2) == 0) {
        chain.indirect();
      }
      chain.readable(submitted);
      for (auto i = below(4); i > 0; --i) {
        chain.readable(std::string(below(9), 'r'));
      }
      std::uint32_t bytes = 4;
      chain.writable(4);
      for (auto i = below(3); i > 0; --i) {
        const auto more = below(9);
        chain.writable(more);
        bytes += more;
      }
      if (below(16) == 0) {
        chain.readable("too late");
        bytes = 0;
        ++refused;
      }
      const auto id = chain.submit();
      ASSERT_TRUE(expected.emplace(id, std::pair{submitted++, bytes}).second);
    } else if (what == 1) {
      if (auto request = queue->pop()) {
        held.push_back(std::move(*request));
      }
    } else if (!held.empty()) {
      std::swap(held[below(static_cast<std::uint32_t>(held.size()))], held.back());
      auto request = std::move(held.back());
      held.pop_back();
      ASSERT_EQ(request.readable()[0].size(), 4U);
      std::ranges::copy(request.readable()[0], request.writable()[0].begin());
      const auto written = request.writable_bytes();
      queue->complete(std::move(request), written);
    }
    while (const auto used = driver.take_used()) {
      const auto found = expected.find(used->id);
      ASSERT_TRUE(found != expected.end());
      const auto [number, bytes] = found->second;
      ASSERT_EQ(used->written, bytes);
      if (bytes != 0) {
        std::uint32_t echoed = 0;
        std::memcpy(&echoed, used->data[0].data(), sizeof(echoed));
        ASSERT_EQ(echoed, number);
      }
      expected.erase(found);
      ++done;
    }
  }
  EXPECT_EQ(driver.free_descriptors(), 64U);
  EXPECT_GT(refused, kRequests / 32);
  EXPECT_EQ(driver.resets_wanted(), 0U);
}

// The device echoes each request, and completes by pairs that must never be seen by halves.
TEST_P(VirtqueueStress, DriverOnAnotherCpu) {
  constexpr std::uint32_t kRequests = 20'000;
  std::atomic<bool> wrong = false;
  std::thread guest{[&] {
    std::uint32_t submitted = 0, done = 0;
    const auto check = [&](const std::optional<FakeDriver::Used>& used) {
      std::uint32_t echoed = 0;
      if (!used || used->written != sizeof(echoed)) {
        return false;
      }
      std::memcpy(&echoed, used->data[0].data(), sizeof(echoed));
      return echoed == done++;
    };
    while (done < kRequests && !wrong) {
      if (submitted < kRequests && driver.free_descriptors() >= 2) {
        driver.chain().readable(submitted++).writable(4).submit();
      }
      if (const auto used = driver.take_used()) {
        wrong = !check(used) || !check(driver.take_used());
      } else {
        std::this_thread::yield();
      }
    }
  }};
  std::vector<VirtQueue::Completion> pair;
  for (std::uint32_t served = 0; served < kRequests && !wrong;) {
    auto request = queue->pop();
    if (!request) {
      std::this_thread::yield();
      continue;
    }
    std::ranges::copy(request->readable()[0], request->writable()[0].begin());
    pair.push_back({std::move(*request), 4});
    if (pair.size() == 2) {
      queue->complete_together(pair);
      queue->notify();
      pair.clear();
      served += 2;
    }
  }
  guest.join();
  EXPECT_FALSE(wrong);
  EXPECT_FALSE(queue->broken());
}

}  // namespace
}  // namespace martlet::virtio
