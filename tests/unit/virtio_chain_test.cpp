#include <gtest/gtest.h>

#include <array>
#include <string>

#include "devices/virtio/chain.h"
#include "virtio_driver.h"

namespace martlet::virtio {
namespace {

struct Header {
  std::uint32_t type;
  std::uint32_t reserved;
  std::uint64_t sector;
};
constexpr Header kHeader{.type = 0x11223344, .reserved = 0, .sector = 0x5566778899aabbcc};

std::string text_of(std::span<const iovec> vectors) {
  std::string text;
  for (const auto& vector : vectors) {
    text.append(static_cast<const char*>(vector.iov_base), vector.iov_len);
  }
  return text;
}

struct VirtioChain : ::testing::Test {
  FakeDriver driver{{.size = 64}};
  std::unique_ptr<VirtQueue> queue = driver.make_queue();
};

TEST_F(VirtioChain, HeaderIsReadWhereverTheDriverSplitIt) {
  const auto bytes = std::as_bytes(std::span{&kHeader, 1});
  for (std::size_t split = 0; split <= bytes.size(); ++split) {
    driver.chain().readable(bytes.first(split)).readable(bytes.subspan(split)).readable("data").submit();
    auto chain = queue->pop();
    ASSERT_TRUE(chain);
    ChainReader in{*chain};
    const auto header = in.read<Header>();
    ASSERT_TRUE(header);
    EXPECT_EQ(header->type, kHeader.type);
    EXPECT_EQ(header->sector, kHeader.sector);
    EXPECT_EQ(in.remaining(), 4U);
    EXPECT_EQ(in.passed(), sizeof(Header));
    queue->complete(std::move(*chain), 0);
    driver.take_used();
  }
}

TEST_F(VirtioChain, HeaderThatIsTooShortIsNotReadAtAll) {
  driver.chain().readable(std::as_bytes(std::span{&kHeader, 1}).first(15)).submit();
  const auto chain = queue->pop();
  ASSERT_TRUE(chain);
  ChainReader in{*chain};
  EXPECT_FALSE(in.read<Header>());
  EXPECT_EQ(in.remaining(), 15U);
  std::array<std::byte, 32> all{};
  EXPECT_EQ(in.copy(all), 15U);
  EXPECT_EQ(in.copy(all), 0U);
  EXPECT_EQ(in.skip(1), 0U);
}

TEST_F(VirtioChain, BuffersAreTakenInPlace) {
  driver.chain().readable("abc").readable("defg").readable("hi").submit();
  const auto chain = queue->pop();
  ASSERT_TRUE(chain);
  ChainReader in{*chain};
  EXPECT_EQ(in.skip(1), 1U);
  std::array<iovec, 2> vectors{};
  EXPECT_EQ(text_of(in.take(vectors, 4)), "bcde");
  EXPECT_EQ(text_of(in.take(vectors)), "fghi");
  EXPECT_TRUE(in.take(vectors).empty());

  ChainReader again{*chain};
  EXPECT_EQ(text_of(again.take(vectors)), "abcdefg") << "as many as there is room for";
  EXPECT_EQ(again.remaining(), 2U);
  again.truncate(1);
  EXPECT_EQ(again.take_span().size(), 1U);
  EXPECT_TRUE(again.take_span().empty());
}

TEST_F(VirtioChain, WriterFillsAndFindsTheLastByte) {
  driver.chain().writable(3).writable(4).writable(2).submit();
  auto chain = queue->pop();
  ASSERT_TRUE(chain);
  ChainWriter out{*chain};
  auto status = out.take_last(1);
  ASSERT_TRUE(status);
  EXPECT_EQ(out.remaining(), 8U);
  EXPECT_EQ(out.copy(std::as_bytes(std::span{"hello", 5})), 5U);
  EXPECT_EQ(out.zero(100), 3U);
  EXPECT_FALSE(out.write('x'));
  EXPECT_EQ(out.passed(), 8U);
  EXPECT_TRUE(status->write('s'));
  EXPECT_FALSE(status->write('s'));
  queue->complete(std::move(*chain), 9);
  const auto used = driver.take_used();
  ASSERT_TRUE(used);
  EXPECT_EQ(used->text(), std::string("hello\0\0\0s", 9));
}

TEST_F(VirtioChain, LastBytesMaySpanBuffersAndMustBeThere) {
  driver.chain().writable(2).writable(1).submit();
  auto chain = queue->pop();
  ASSERT_TRUE(chain);
  ChainWriter out{*chain};
  EXPECT_FALSE(out.take_last(4));
  EXPECT_EQ(out.remaining(), 3U);
  auto last = out.take_last(2);
  ASSERT_TRUE(last);
  EXPECT_TRUE(last->write(std::array{'y', 'z'}));
  EXPECT_FALSE(out.write(std::array{'a', 'b'})) << "one byte is left, and nothing is written by halves";
  EXPECT_TRUE(out.write('x'));
  queue->complete(std::move(*chain), 3);
  EXPECT_EQ(driver.take_used()->text(), "xyz");
}

TEST_F(VirtioChain, OutlivesAMoveOfTheChain) {
  driver.chain().readable("abc").submit();
  auto chain = queue->pop();
  ASSERT_TRUE(chain);
  ChainReader in{*chain};
  const DescriptorChain moved = std::move(*chain);
  EXPECT_EQ(in.read<char>(), 'a');
}

}  // namespace
}  // namespace martlet::virtio
