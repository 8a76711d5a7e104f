#include "devices/virtio/qcow2_open.h"

#include <gmock/gmock.h>

#include "block_support.h"
#include "devices/virtio/disk_open.h"
#include "qcow2_support.h"

namespace martlet::virtio {
namespace {

using namespace qcow2_test;
using qcow2_test::Bytes;
using testing::AllOf;
using testing::HasSubstr;

constexpr std::size_t kSize = 1U << 20U;

/// Images on the host, and a guest that drives them by io_uring.
struct Qcow2Script : testing::TestWithParam<DiskCache>, BlockGuest {
  Qcow2Script() : BlockGuest{Ring::Split} {
    store(base, pattern(kSize, 0));
    EXPECT_EQ(shell(fmt::format("qemu-img create -f qcow2 {} 1M", plain)), 0);
    EXPECT_EQ(shell(fmt::format("qemu-img create -f qcow2 -F raw -b base.raw {}", top)), 0);
  }
  void open(const DiskOptions& options) {
    block.reset();
    attach(open_disk(loop, options), options);
  }
  std::string refusal(const DiskOptions& options) {
    const auto message = host_error([&] { static_cast<void>(open_disk(loop, options)); });
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    return message;
  }
  [[nodiscard]] DiskOptions over_base() const {
    return {.path = top,
            .format = DiskFormat::Qcow2,
            .backing = base,
            .backing_format = DiskFormat::Raw,
            .cache = GetParam()};
  }
  const test::TempDir folder;
  std::string base = folder.file("base.raw");
  std::string plain = folder.file("plain.qcow2");
  std::string top = folder.file("top.qcow2");
};

TEST_P(Qcow2Script, KeepsWhatTheGuestWrites) {
  open(over_base());
  EXPECT_EQ(config<std::uint64_t>(0), kSize / 512);
  auto expected = pattern(kSize, 0);
  const auto put = [&](std::uint64_t sector, std::size_t bytes, unsigned seed) {
    EXPECT_EQ(write(sector, pattern(bytes, seed)), BlockStatus::Ok);
    std::ranges::copy(pattern(bytes, seed), expected.begin() + static_cast<std::ptrdiff_t>(sector * 512));
  };
  put(0, 512, 1);
  put(129, 4096, 2);
  put(300, 128 << 10U, 3);
  EXPECT_EQ(ranges(BlockType::WriteZeroes, {{.sector = 1000, .sectors = 300, .flags = 1}}), BlockStatus::Ok);
  std::fill_n(expected.begin() + 1000 * 512, 300 * 512, std::byte{0});
  EXPECT_EQ(flush(), BlockStatus::Ok);
  put(130, 512, 4);
  EXPECT_EQ(read(129, 4096).data, Bytes(expected.begin() + 129 * 512, expected.begin() + 129 * 512 + 4096));
  block.reset();
  expect_sound(top);
  EXPECT_EQ(shell(fmt::format("qemu-img convert -O raw {} {}", top, folder.file("all.raw"))), 0);
  EXPECT_EQ(load(folder.file("all.raw")), expected);
  EXPECT_EQ(load(base), pattern(kSize, 0));
  // And once more by itself, only reading.
  auto options = over_base();
  options.access = DiskAccess::ReadOnly;
  open(options);
  EXPECT_EQ(read(0, 64 << 10U).data, Bytes(expected.begin(), expected.begin() + (64 << 10U)));
  EXPECT_EQ(read(900, 64 << 10U).data, Bytes(expected.begin() + 900 * 512, expected.begin() + 900 * 512 + (64 << 10U)));
  EXPECT_EQ(write(0, pattern(512, 9)), BlockStatus::IoError);
}

TEST_P(Qcow2Script, ManyWritesToOneNewClusterMeet) {
  open({.path = plain, .format = DiskFormat::Qcow2, .cache = GetParam()});
  for (std::uint64_t i = 0; i < 16; ++i) {
    driver.chain().readable(header(BlockType::Out, 8 * i)).readable(pattern(4096, 10)).writable(1).submit();
  }
  block->notified(0);
  for (int answers = 0; answers < 16;) {
    if (const auto answer = take_answer()) {
      EXPECT_EQ(answer->status, BlockStatus::Ok);
      ++answers;
    } else {
      disk->wait();
    }
  }
  block.reset();
  expect_sound(plain);
  open({.path = plain, .format = DiskFormat::Qcow2, .cache = GetParam()});
  for (std::uint64_t i = 0; i < 16; ++i) {
    EXPECT_EQ(read(8 * i, 4096).data, pattern(4096, 10));
  }
}

INSTANTIATE_TEST_SUITE_P(Caches, Qcow2Script,
                         testing::Values(DiskCache::Writeback, DiskCache::Direct, DiskCache::Unsafe));

TEST_P(Qcow2Script, OpensOnlyWhatTheCommandLineNames) {
  EXPECT_THAT(refusal({.path = top, .format = DiskFormat::Qcow2}),
              AllOf(HasSubstr("names the backing file base.raw"),
                    HasSubstr(fmt::format("--disk path={},format=qcow2,backing={},backing_format=raw", top, base))));
  EXPECT_THAT(refusal({.path = plain, .format = DiskFormat::Qcow2, .backing = base}),
              AllOf(HasSubstr("has no backing file"), HasSubstr("leave it out")));
  EXPECT_THAT(refusal({.path = top, .format = DiskFormat::Qcow2, .backing = folder.file("missing")}),
              HasSubstr("No such file"));
  EXPECT_THAT(refusal({.path = top, .format = DiskFormat::Qcow2, .backing = top}), HasSubstr("this very command"));
  EXPECT_THAT(refusal({.path = top, .format = DiskFormat::Qcow2, .backing = plain}),
              AllOf(HasSubstr("looks like qcow2"), HasSubstr("backing_format=qcow2")));
  const auto third = folder.file("third.qcow2");
  EXPECT_EQ(shell(fmt::format("qemu-img create -f qcow2 -F qcow2 -b {} {}", top, third)), 0);
  EXPECT_THAT(
      refusal({.path = third, .format = DiskFormat::Qcow2, .backing = top, .backing_format = DiskFormat::Qcow2}),
      AllOf(HasSubstr("has a backing file itself"), HasSubstr("qemu-img rebase")));
  EXPECT_THAT(refusal({.path = base, .format = DiskFormat::Qcow2}), HasSubstr("magic"));
  EXPECT_THAT(refusal({.path = plain, .format = DiskFormat::Qcow2, .overlay = "tmp"}), HasSubstr("raw images"));
  const auto odd = folder.file("odd.qcow2");
  EXPECT_EQ(shell(fmt::format("qemu-img create -f qcow2 {} 1536", odd)), 0);
  EXPECT_THAT(refusal({.path = odd, .format = DiskFormat::Qcow2, .block_size = 4096}), HasSubstr("block_size=512"));
}

TEST_P(Qcow2Script, LocksTheImageAndItsBackingFile) {
  const auto mine = open_disk(loop, over_base());
  EXPECT_THAT(refusal(over_base()), HasSubstr("this very command"));
  EXPECT_THAT(refusal({.path = base}), HasSubstr("has it open"));
  EXPECT_TRUE(open_disk(loop, {.path = base, .access = DiskAccess::ReadOnly}));
  EXPECT_NE(shell(fmt::format("qemu-img info {}", top), {1}), 0);
}

TEST_P(Qcow2Script, RefusalsLeaveTheImageAlone) {
  const auto before = load(top);
  EXPECT_NE(refusal({.path = top, .format = DiskFormat::Qcow2}), "");
  EXPECT_EQ(load(top), before);
}

}  // namespace
}  // namespace martlet::virtio
