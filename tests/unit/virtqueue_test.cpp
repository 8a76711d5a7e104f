#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "devices/virtio/queue.h"
#include "virtio_driver.h"

namespace martlet::virtio {
namespace {

std::string text_of(std::span<const std::span<std::byte>> buffers) {
  std::string text;
  for (const auto buffer : buffers) {
    text.append(reinterpret_cast<const char*>(buffer.data()), buffer.size());
  }
  return text;
}

void fill(const DescriptorChain& chain, char what) {
  for (const auto buffer : chain.writable()) {
    std::ranges::fill(buffer, static_cast<std::byte>(what));
  }
}

enum class Table { Direct, Indirect };

/// Every script runs on both rings, its chains in the ring or in indirect tables.
struct Virtqueue : ::testing::TestWithParam<std::pair<Ring, Table>> {
  FakeDriver::Chain chain() {
    auto made = driver.chain();
    return GetParam().second == Table::Indirect ? made.indirect() : made;
  }
  FakeDriver driver{{.size = 16, .ring = GetParam().first, .features = kIndirectDescriptors}};
  std::unique_ptr<VirtQueue> queue = driver.make_queue();
};

TEST_P(Virtqueue, CarriesARequestThereAndBack) {
  EXPECT_FALSE(queue->pop());
  const auto id = chain().readable("hel").readable("lo").writable(3).writable(2).submit();
  auto request = queue->pop();
  ASSERT_TRUE(request);
  EXPECT_EQ(text_of(request->readable()), "hello");
  EXPECT_EQ(request->readable().size(), 2U);
  EXPECT_EQ(request->writable().size(), 2U);
  EXPECT_EQ(request->readable_bytes(), 5U);
  EXPECT_EQ(request->writable_bytes(), 5U);
  EXPECT_FALSE(queue->pop());
  EXPECT_FALSE(driver.take_used());
  fill(*request, 'x');
  queue->complete(std::move(*request), 4);
  const auto used = driver.take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->id, id);
  EXPECT_EQ(used->written, 4U);
  EXPECT_EQ(used->text(), "xxxx");
  EXPECT_FALSE(driver.take_used());
  EXPECT_EQ(driver.interrupts(), 0U);
  queue->notify();
  EXPECT_EQ(driver.interrupts(), 1U);
  queue->notify();
  EXPECT_EQ(driver.interrupts(), 1U);
}

INSTANTIATE_TEST_SUITE_P(Rings, Virtqueue,
                         ::testing::Values(std::pair{Ring::Split, Table::Direct},
                                           std::pair{Ring::Split, Table::Indirect},
                                           std::pair{Ring::Packed, Table::Direct},
                                           std::pair{Ring::Packed, Table::Indirect}),
                         [](const auto& rings) {
                           return std::string{rings.param.first == Ring::Split ? "Split" : "Packed"} +
                                  (rings.param.second == Table::Direct ? "Direct" : "Indirect");
                         });

}  // namespace
}  // namespace martlet::virtio
