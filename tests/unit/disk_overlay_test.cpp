#include "devices/virtio/disk_overlay.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>

#include "block_support.h"
#include "devices/virtio/disk_open.h"
#include "devices/virtio/sector_map.h"

namespace martlet::virtio {
namespace {

using testing::HasSubstr;
constexpr std::size_t kSize = 1U << 20U;

TEST(SectorMap, FindsRunsAndRemembersWhatChanged) {
  SectorMap map{100'000};
  EXPECT_EQ(map.bytes().size(), 4U * 4096);
  EXPECT_EQ(map.run_at(0, 100'000).sectors, 100'000U);
  map.set(3, 200);
  map.set(64, 64);  // inside of it
  map.set(99'999, 1);
  const auto expect_run = [&](std::uint64_t from, std::uint64_t limit, SectorMap::Run::Kind kind,
                              std::uint64_t length) {
    const auto run = map.run_at(from, limit);
    EXPECT_EQ(run.kind, kind) << from;
    EXPECT_EQ(run.sectors, length) << from;
  };
  using Kind = SectorMap::Run::Kind;
  expect_run(0, 1000, Kind::Untouched, 3);
  expect_run(3, 1000, Kind::Written, 200);
  expect_run(63, 1, Kind::Written, 1);
  expect_run(202, 1000, Kind::Written, 1);
  expect_run(203, 99'797, Kind::Untouched, 99'796);
  expect_run(99'999, 1, Kind::Written, 1);
  expect_run(100'000, 0, Kind::Untouched, 0);

  const auto pages = map.take_changed();
  ASSERT_EQ(pages.size(), 2U);
  EXPECT_EQ(pages[0].offset, 0U);
  EXPECT_EQ(pages[0].bytes.size(), 4096U);
  EXPECT_EQ(pages[1].offset, 3U * 4096);
  EXPECT_TRUE(map.take_changed().empty());
  map.set(3, 200);  // nothing new
  EXPECT_TRUE(map.take_changed().empty());
  map.put_back(pages);
  map.set(40'000, 1);                        // between the two
  EXPECT_EQ(map.take_changed().size(), 2U);  // 0 and 1 in a row, and 3
}

struct OverlayScript : testing::Test, BlockGuest {
  OverlayScript() : BlockGuest{Ring::Split} {}

  void open(const std::string& overlay, DiskCache cache = DiskCache::Writeback) {
    block.reset();
    const DiskOptions options{.path = base.path(), .cache = cache, .overlay = overlay};
    attach(open_disk(loop, options), options);
  }
  /// The whole disk as the guest sees it.
  Bytes everything() {
    Bytes bytes;
    for (std::uint64_t sector = 0; sector < kSize / 512; sector += 256) {
      const auto part = read(sector, 256 * 512);
      EXPECT_EQ(part.status, BlockStatus::Ok);
      bytes.insert(bytes.end(), part.data.begin(), part.data.end());
    }
    return bytes;
  }
  std::string refusal(const std::string& overlay) {
    return host_error([&] { static_cast<void>(open_disk(loop, {.path = base.path(), .overlay = overlay})); });
  }
  TempFile base{pattern(kSize, 0)};
  std::string path = base.path() + ".overlay";
  ~OverlayScript() override {
    block.reset();
    ::unlink(path.c_str());
  }

  Bytes expected = pattern(kSize, 0);
  void change_everything() {
    EXPECT_EQ(write(1, pattern(512, 1)), BlockStatus::Ok);
    EXPECT_EQ(write(100, pattern(8192, 2)), BlockStatus::Ok);
    EXPECT_EQ(write(104, pattern(512, 3)), BlockStatus::Ok);
    EXPECT_EQ(write(kSize / 512 - 1, pattern(512, 4)), BlockStatus::Ok);
    EXPECT_EQ(ranges(BlockType::Discard, {{.sector = 300, .sectors = 77}}), BlockStatus::Ok);
    EXPECT_EQ(
        ranges(BlockType::WriteZeroes, {{.sector = 500, .sectors = 9}, {.sector = 600, .sectors = 1, .flags = 1}}),
        BlockStatus::Ok);
    std::ranges::copy(pattern(512, 1), expected.begin() + 512);
    std::ranges::copy(pattern(8192, 2), expected.begin() + 100 * 512);
    std::ranges::copy(pattern(512, 3), expected.begin() + 104 * 512);
    std::ranges::copy(pattern(512, 4), expected.end() - 512);
    std::fill_n(expected.begin() + 300 * 512, 77 * 512, std::byte{0});
    std::fill_n(expected.begin() + 500 * 512, 9 * 512, std::byte{0});
    std::fill_n(expected.begin() + 600 * 512, 512, std::byte{0});
  }
};

TEST_F(OverlayScript, WritesLeaveTheBaseAlone) {
  ASSERT_EQ(::chmod(base.path().c_str(), 0444), 0);
  for (const auto& where : {std::string{"tmp"}, path}) {
    expected = pattern(kSize, 0);
    open(where);
    EXPECT_EQ(everything(), expected);
    change_everything();
    EXPECT_EQ(everything(), expected);
    EXPECT_EQ(flush(), BlockStatus::Ok);
    block.reset();
    EXPECT_EQ(base.content(), pattern(kSize, 0));
  }
}

TEST_F(OverlayScript, AFileKeepsThem) {
  for (const auto cache : {DiskCache::Writeback, DiskCache::Direct, DiskCache::Unsafe}) {
    ::unlink(path.c_str());
    expected = pattern(kSize, 0);
    open(path, cache);
    change_everything();
    open(path, cache);
    EXPECT_EQ(everything(), expected);
    EXPECT_EQ(write(0, pattern(512, 6)), BlockStatus::Ok);
    std::ranges::copy(pattern(512, 6), expected.begin());
    open(path);
    EXPECT_EQ(everything(), expected);
  }
  EXPECT_EQ(base.content(), pattern(kSize, 0));
}

TEST_F(OverlayScript, ATemporaryOneForgets) {
  open("tmp");
  change_everything();
  open("tmp");
  EXPECT_EQ(everything(), pattern(kSize, 0));
}

TEST_F(OverlayScript, WhatWasFlushedOutlivesACrash) {
  open(path);
  EXPECT_EQ(write(10, pattern(512, 1)), BlockStatus::Ok);
  EXPECT_EQ(flush(), BlockStatus::Ok);
  EXPECT_EQ(write(20, pattern(512, 2)), BlockStatus::Ok);  // never flushed
  // The file as a crash would leave it: a copy, now.
  Bytes bytes;
  {
    const Fd file = open_file(path, O_RDONLY);
    struct stat status {};
    ASSERT_EQ(::fstat(file.get(), &status), 0);
    bytes.resize(static_cast<std::size_t>(status.st_size));
    read_exactly(file.get(), bytes, 0, path);
  }
  const TempFile crashed{bytes};
  open(crashed.path());
  std::ranges::copy(pattern(512, 1), expected.begin() + 10 * 512);
  EXPECT_EQ(everything(), expected);
}

TEST_F(OverlayScript, ManyFlushesShareARound) {
  open(path);
  for (std::uint64_t i = 0; i < 8; ++i) {
    driver.chain().readable(header(BlockType::Out, i)).readable(pattern(512, 9)).writable(1).submit();
    driver.chain().readable(header(BlockType::Flush)).writable(1).submit();
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
  EXPECT_EQ(read(7, 512).data, pattern(512, 9));
}

/// Files end here, which stands for a full file system: the kernel writes a part, then nothing.
class FullAt {
 public:
  explicit FullAt(std::uint64_t bytes) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit full = before_;
    full.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &full);
  }
  FullAt(const FullAt&) = delete;
  FullAt& operator=(const FullAt&) = delete;
  ~FullAt() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(OverlayScript, AFullHostLosesNothingAcknowledged) {
  open(path);
  constexpr std::uint64_t kData = 1U << 20U;  // where it begins
  EXPECT_EQ(write(0, pattern(4096, 1)), BlockStatus::Ok);
  {
    const FullAt full{kData + kSize / 2 + 512};
    EXPECT_EQ(write(kSize / 1024, pattern(4096, 2)), BlockStatus::IoError);
    EXPECT_EQ(write(kSize / 512 - 8, pattern(4096, 3)), BlockStatus::IoError);
    EXPECT_EQ(write(64, pattern(4096, 4)), BlockStatus::Ok);
    EXPECT_EQ(flush(), BlockStatus::Ok);
  }
  EXPECT_EQ(write(128, pattern(4096, 5)), BlockStatus::Ok);
  {
    const FullAt full{512};  // no room for the map either
    EXPECT_EQ(flush(), BlockStatus::IoError);
  }
  EXPECT_EQ(flush(), BlockStatus::Ok);  // nothing was lost: it only was not told of
  const Bytes bytes = [&] {             // as a crash would leave it
    Bytes all(std::filesystem::file_size(path));
    read_exactly(open_file(path, O_RDONLY).get(), all, 0, path);
    return all;
  }();
  const TempFile crashed{bytes};
  open(crashed.path());
  std::ranges::copy(pattern(4096, 1), expected.begin());
  std::ranges::copy(pattern(4096, 4), expected.begin() + 64 * 512);
  std::ranges::copy(pattern(4096, 5), expected.begin() + 128 * 512);
  EXPECT_EQ(everything(), expected);
}

TEST_F(OverlayScript, AFlushThatFailedMakesAllLaterOnesFail) {
  open(path);
  EXPECT_EQ(write(0, pattern(512, 1)), BlockStatus::Ok);
  int file = -1;  // the overlay's
  for (const auto& entry : std::filesystem::directory_iterator{"/proc/self/fd"}) {
    std::error_code error;
    if (std::filesystem::equivalent(entry.path(), path, error)) {
      file = std::stoi(entry.path().filename());
    }
  }
  ASSERT_GE(file, 0);
  Fd good = duplicate(file);
  ASSERT_EQ(::dup2(make_eventfd().get(), file), file);  // cannot be flushed
  EXPECT_EQ(flush(), BlockStatus::IoError);
  ASSERT_EQ(::dup2(good.get(), file), file);  // can be now, but what was written before is lost
  good = Fd{};
  EXPECT_EQ(flush(), BlockStatus::IoError);
  open(path);
  EXPECT_EQ(flush(), BlockStatus::Ok);
}

TEST_F(OverlayScript, OneThatNobodyUsedIsNotLeftBehind) {
  const TempFile empty{{}};
  for (const auto cache : {DiskCache::Writeback, DiskCache::Direct}) {
    open(path, cache);
    block.reset();
    EXPECT_FALSE(std::filesystem::exists(path));
    open(empty.path(), cache);
    block.reset();
    EXPECT_EQ(std::filesystem::file_size(empty.path()), 0U);
  }
  open(path);
  EXPECT_EQ(read(0, 512).status, BlockStatus::Ok);
  open(path);  // was used, is used again
  block.reset();
  EXPECT_TRUE(std::filesystem::exists(path));
  const TempFile text{Bytes(100, std::byte{'x'})};
  EXPECT_THAT(refusal(text.path()), HasSubstr("no overlay"));
  EXPECT_EQ(text.content().size(), 100U);
}

TEST_F(OverlayScript, RefusesWhatIsNoOverlayOfThisImage) {
  const TempFile text{Bytes(100, std::byte{'x'})};
  EXPECT_THAT(refusal(text.path()), HasSubstr("no overlay of Martlet's"));
  EXPECT_EQ(text.content(), Bytes(100, std::byte{'x'}));
  const TempFile large{Bytes(4 * kSize, std::byte{'x'})};
  EXPECT_THAT(refusal(large.path()), HasSubstr("no overlay of Martlet's"));
  EXPECT_THAT(refusal(base.path()), HasSubstr("this very command"));
  EXPECT_THAT(refusal("/nonexistent/overlay"), HasSubstr("/nonexistent/overlay"));
  EXPECT_THAT(refusal("/tmp"), HasSubstr("/tmp"));

  open(path);
  EXPECT_THAT(refusal(path), HasSubstr("this very command"));
  EXPECT_EQ(read(0, 512).status, BlockStatus::Ok);
  block.reset();
  const TempFile other{pattern(2 * kSize, 0)};
  EXPECT_THAT(host_error([&] { static_cast<void>(open_disk(loop, {.path = other.path(), .overlay = path})); }),
              HasSubstr("belongs to an image of 1048576 bytes"));
  ASSERT_EQ(::truncate(path.c_str(), kSize), 0);
  EXPECT_THAT(refusal(path), HasSubstr("damaged"));
}

}  // namespace
}  // namespace martlet::virtio
