#pragma once
// For tests of queues: each script runs on both rings, its chains in the ring itself or in indirect tables.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "virtio_driver.h"

namespace martlet::virtio {

enum class Table { Direct, Indirect };

inline std::string text_of(std::span<const std::span<std::byte>> buffers) {
  std::string text;
  for (const auto buffer : buffers) {
    text.append(reinterpret_cast<const char*>(buffer.data()), buffer.size());
  }
  return text;
}

inline void fill(const DescriptorChain& chain, char what) {
  for (const auto buffer : chain.writable()) {
    std::ranges::fill(buffer, static_cast<std::byte>(what));
  }
}

struct RingScript : ::testing::Test {
  RingScript(Ring which, Table table, FakeDriver::Options options)
      : ring{which}, indirect{table == Table::Indirect}, driver{with(options, which)} {}

  FakeDriver::Chain chain() {
    auto made = driver.chain();
    if (indirect) {
      made.indirect();
    }
    return made;
  }
  /// Submits a good request and sees it served: the queue lives.
  void serves_the_next() {
    const auto id = chain().readable("ping").writable(4).submit();
    auto request = queue->pop();
    ASSERT_TRUE(request);
    EXPECT_EQ(text_of(request->readable()), "ping");
    fill(*request, 'o');
    queue->complete(std::move(*request), 4);
    const auto used = driver.take_used();
    ASSERT_TRUE(used);
    EXPECT_EQ(used->id, id);
    EXPECT_EQ(used->text(), "oooo");
    EXPECT_EQ(driver.resets_wanted(), 0U);
  }
  static FakeDriver::Options with(FakeDriver::Options options, Ring ring) {
    options.ring = ring;
    return options;
  }

  Ring ring;
  bool indirect;
  FakeDriver driver;
  std::unique_ptr<VirtQueue> queue = driver.make_queue();
};

inline std::string name_of(Ring ring) { return ring == Ring::Split ? "Split" : "Packed"; }

struct EachTable : ::testing::WithParamInterface<std::pair<Ring, Table>>, RingScript {
  explicit EachTable(FakeDriver::Options options = {.size = 16, .features = kIndirectDescriptors})
      : RingScript{GetParam().first, GetParam().second, options} {}
};
inline auto each_table() {
  return ::testing::Values(std::pair{Ring::Split, Table::Direct}, std::pair{Ring::Split, Table::Indirect},
                           std::pair{Ring::Packed, Table::Direct}, std::pair{Ring::Packed, Table::Indirect});
}
inline std::string name_of_table(const ::testing::TestParamInfo<std::pair<Ring, Table>>& tested) {
  return name_of(tested.param.first) + (tested.param.second == Table::Direct ? "Direct" : "Indirect");
}

struct EachRing : ::testing::WithParamInterface<Ring>, RingScript {
  explicit EachRing(FakeDriver::Options options = {.size = 16, .features = kIndirectDescriptors})
      : RingScript{GetParam(), Table::Direct, options} {}
};
inline auto each_ring() { return ::testing::Values(Ring::Split, Ring::Packed); }
inline std::string name_of_ring(const ::testing::TestParamInfo<Ring>& tested) { return name_of(tested.param); }

}  // namespace martlet::virtio
