#include "devices/virtio/disk_raw.h"

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>

#include "block_support.h"
#include "devices/virtio/disk_open.h"

namespace martlet::virtio {
namespace {

constexpr std::size_t kSize = 1U << 20U;

/// Where: a file system with holes and FALLOC_FL_ZERO_RANGE (most), and tmpfs, which has none of the latter.
struct Place {
  DiskCache cache;
  std::string folder;
};

struct RawDiskScript : testing::TestWithParam<Place>, BlockGuest {
  RawDiskScript() : BlockGuest{Ring::Split} {}

  void open(DiskOptions options = {}) {
    options.path = image.path();
    options.cache = GetParam().cache;
    auto made = open_disk(loop, options);
    raw = dynamic_cast<RawDisk*>(made.get());
    attach(std::move(made), options);
  }
  TempFile image{pattern(kSize, 0), GetParam().folder};
  RawDisk* raw = nullptr;
};
std::string name_of(const testing::TestParamInfo<Place>& place) {
  constexpr std::array kNames{"Writeback", "Direct", "Unsafe"};
  return std::string{kNames.at(static_cast<std::size_t>(place.param.cache))} +
         (place.param.folder == "/dev/shm" ? "OnTmpfs" : "");
}
INSTANTIATE_TEST_SUITE_P(Caches, RawDiskScript,
                         testing::Values(Place{DiskCache::Writeback, "/var/tmp"}, Place{DiskCache::Direct, "/var/tmp"},
                                         Place{DiskCache::Unsafe, "/var/tmp"}, Place{DiskCache::Writeback, "/dev/shm"}),
                         name_of);

TEST_P(RawDiskScript, ReadsAndWritesTheImage) {
  open();
  auto expected = pattern(kSize, 0);
  EXPECT_EQ(read(0, 4096).data, Bytes(expected.begin(), expected.begin() + 4096));
  const auto bytes = pattern(64 << 10, 9);
  EXPECT_EQ(write(16, bytes), BlockStatus::Ok);
  EXPECT_EQ(write(3, pattern(512, 5)), BlockStatus::Ok);  // not aligned to any larger block
  EXPECT_EQ(flush(), BlockStatus::Ok);
  EXPECT_EQ(read(16, 64 << 10).data, bytes);
  EXPECT_EQ(read(3, 512).data, pattern(512, 5));
  block.reset();
  std::ranges::copy(bytes, expected.begin() + 16 * 512);
  std::ranges::copy(pattern(512, 5), expected.begin() + 3 * 512);
  EXPECT_EQ(image.content(), expected);
}

TEST_P(RawDiskScript, BuffersMayLieAnywhere) {
  open();
  const auto expected = pattern(kSize, 0);
  for (const std::uint64_t shift : {0U, 1U, 8U, 511U}) {
    // Data in three buffers of odd sizes and addresses.
    const auto memory = driver.allocate(16384, 4096);
    auto chain = driver.chain();
    chain.readable(header(BlockType::In, 8));
    chain.raw({.addr = martlet::raw(memory) + shift, .len = 1000, .flags = kWrite});
    chain.raw({.addr = martlet::raw(memory) + 4096 + shift, .len = 3000, .flags = kWrite});
    chain.raw({.addr = martlet::raw(memory) + 8192 + shift, .len = 4192, .flags = kWrite});
    chain.writable(1).submit();
    EXPECT_EQ(finish().status, BlockStatus::Ok);
    EXPECT_EQ(driver.read<std::byte>(memory + shift), expected[4096]);
    EXPECT_EQ(driver.read<std::byte>(memory + 4096 + shift), expected[4096 + 1000]);
    EXPECT_EQ(driver.read<std::byte>(memory + 8192 + shift + 4191), expected[4096 + 8191]);
  }
}

TEST_P(RawDiskScript, DiscardedAndZeroedSectorsReadAsZeroes) {
  open();
  EXPECT_EQ(ranges(BlockType::Discard, {{.sector = 8, .sectors = 8}, {.sector = 32, .sectors = 1}}), BlockStatus::Ok);
  EXPECT_EQ(ranges(BlockType::WriteZeroes, {{.sector = 64, .sectors = 3}, {.sector = 80, .sectors = 300, .flags = 1}}),
            BlockStatus::Ok);
  EXPECT_EQ(ranges(BlockType::WriteZeroes, {{.sector = 400, .sectors = 1600}}), BlockStatus::Ok);
  EXPECT_EQ(read(64, 3 * 512).data, Bytes(3 * 512));
  block.reset();
  auto expected = pattern(kSize, 0);
  for (const auto& [sector, count] : {std::pair{8, 8}, {32, 1}, {64, 3}, {80, 300}, {400, 1600}}) {
    std::fill_n(expected.begin() + sector * 512, count * 512, std::byte{0});
  }
  EXPECT_EQ(image.content(), expected);
}

TEST_P(RawDiskScript, AnImageThatWasCutAnswersWithErrorsOnlyThere) {
  open();
  ASSERT_EQ(::truncate(image.path().c_str(), kSize / 2), 0);
  EXPECT_EQ(read(kSize / 512 - 8, 4096).status, BlockStatus::IoError);
  EXPECT_EQ(read(kSize / 1024 - 4, 4096).status, BlockStatus::IoError);  // half of it is there
  EXPECT_EQ(read(0, 4096).status, BlockStatus::Ok);
  block->resized();
  EXPECT_EQ(config<std::uint64_t>(0), kSize / 1024);
  EXPECT_EQ(driver.config_changes(), 1U);
}

TEST_P(RawDiskScript, AFullHostIsAnErrorOfThatWriteOnly) {
  ASSERT_EQ(::truncate(image.path().c_str(), 4 * kSize), 0);
  open();
  EXPECT_EQ(write(0, pattern(4096, 7)), BlockStatus::Ok);
  ::signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  rlimit full = before;
  full.rlim_cur = 2 * kSize + 2048;  // stands for a full file system: the kernel writes a part, then nothing
  ::setrlimit(RLIMIT_FSIZE, &full);
  const auto refused = write(4 * kSize / 512 - 8, pattern(4096, 8));
  const auto cut = write(2 * kSize / 512, pattern(4096, 8));
  const auto good = write(64, pattern(4096, 9));
  ::setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(refused, BlockStatus::IoError);
  EXPECT_EQ(cut, BlockStatus::IoError);
  EXPECT_EQ(good, BlockStatus::Ok);
  EXPECT_EQ(read(0, 4096).data, pattern(4096, 7));
  EXPECT_EQ(read(64, 4096).data, pattern(4096, 9));
  EXPECT_EQ(flush(), BlockStatus::Ok);
}

TEST_P(RawDiskScript, ManyRequestsTakeFewSystemCalls) {
  open();
  const auto before = raw->system_calls();
  constexpr std::uint64_t kBatches = 16;
  constexpr std::uint64_t kDepth = 32;
  const auto memory = martlet::raw(driver.allocate(kDepth * 4096, 4096));
  for (std::uint64_t batch = 0; batch < kBatches; ++batch) {
    for (std::uint64_t i = 0; i < kDepth; ++i) {
      driver.chain()
          .readable(header(BlockType::In, 8 * ((batch * kDepth + i) % 256)))
          .raw({.addr = memory + i * 4096, .len = 4096, .flags = kWrite})
          .writable(1)
          .indirect()
          .submit();
    }
    block->notified(0);
    for (std::uint64_t i = 0; i < kDepth; ++i) {
      auto answer = take_answer();
      while (!answer) {
        disk->wait();
        answer = take_answer();
      }
      EXPECT_EQ(answer->status, BlockStatus::Ok);
    }
  }
  const auto calls = raw->system_calls() - before;
  RecordProperty("io_uring_enter_per_512_requests", static_cast<int>(calls));
  if (GetParam().cache != DiskCache::Direct) {  // there each completion may have to be waited for
    EXPECT_LE(calls, kBatches * kDepth / 4);
  }
}

TEST_P(RawDiskScript, AlignedRequestsGoPastThePageCacheIfAsked) {
  const DiskFile file{{.path = image.path(), .cache = GetParam().cache}};
  alignas(4096) static std::array<std::byte, 8192> memory;
  const auto fd_for = [&](std::size_t address, std::size_t length, std::uint64_t offset) {
    const iovec buffer{.iov_base = memory.data() + address, .iov_len = length};
    return file.fd_for({&buffer, 1}, offset);
  };
  EXPECT_EQ(fd_for(0, 4096, 4096) != file.buffered(), GetParam().cache == DiskCache::Direct);
  EXPECT_EQ(fd_for(1, 4096, 4096), file.buffered());
  EXPECT_EQ(fd_for(0, 4095, 4096), file.buffered());
  EXPECT_EQ(fd_for(0, 4096, 4097), file.buffered());
}

TEST_P(RawDiskScript, BothWaysToTheImageSeeTheSame) {
  open();
  const auto memory = driver.allocate(8192, 4096);
  const auto aligned = [&](BlockType type) {
    const auto flags = static_cast<std::uint16_t>(type == BlockType::In ? kWrite : 0);
    driver.chain()
        .readable(header(type, 8))
        .raw({.addr = martlet::raw(memory), .len = 8192, .flags = flags})
        .writable(1)
        .submit();
    EXPECT_EQ(finish().status, BlockStatus::Ok);
  };
  EXPECT_EQ(write(9, pattern(512, 1)), BlockStatus::Ok);  // through the page cache
  aligned(BlockType::In);
  EXPECT_EQ(driver.read<std::byte>(memory + 512 + 7), pattern(512, 1)[7]);
  driver.write(memory + 512 + 7, std::byte{0x5a});
  aligned(BlockType::Out);
  EXPECT_EQ(read(9, 512).data[7], std::byte{0x5a});
}

TEST_P(RawDiskScript, TheLoopAloneFinishesRequests) {
  open();
  for (std::uint64_t i = 0; i < 8; ++i) {
    driver.chain()
        .readable(header(i % 2 == 0 ? BlockType::Flush : BlockType::In, i))
        .writable(512)
        .writable(1)
        .submit();
  }
  block->notified(0);
  int answers = 0;
  Timer look{loop, [&] {
               while (take_answer()) {
                 ++answers;
               }
               if (answers == 8) {
                 loop.stop();
               }
             }};
  look.start_periodic(std::chrono::milliseconds{1});
  loop.run();
  EXPECT_EQ(answers, 8);
}

TEST_P(RawDiskScript, StoppingInFlightLeavesGuestMemoryAlone) {
  open();
  for (std::uint64_t i = 0; i < 16; ++i) {
    driver.chain().readable(header(BlockType::In, 8 * i)).writable(4096).writable(1).submit();
  }
  block->notified(0);
  block->stop();
  while (take_answer()) {
  }
  EXPECT_EQ(driver.in_flight(), 0U);
  start();
  EXPECT_EQ(read(0, 512).status, BlockStatus::Ok);
}

TEST(LostWrites, AreThoseOfAFlushThatTookPlace) {
  LostWrites lost;
  for (const int error : {0, EINTR, EAGAIN, ECANCELED}) {
    lost.flushed(error);
    EXPECT_EQ(lost.error(), 0) << error;
  }
  for (const int error : {EIO, 0, EINTR}) {
    lost.flushed(error);
    EXPECT_EQ(lost.error(), EIO) << error;
  }
}

TEST(RawDisk, AFlushThatFailedMakesAllLaterOnesFail) {
  class Flush final : public DiskRequest {
   public:
    Flush() { work.kind = Kind::Flush; }
    void done(int error) noexcept override { result = error; }
    std::optional<int> result;
  };
  const auto flush = [](RawDisk& disk) {
    Flush request;
    disk.submit(request);
    disk.commit();
    while (!request.result) {
      disk.wait();
    }
    return *request.result;
  };
  EventLoop loop;
  const TempFile image{Bytes(4096)};
  Fd fd = make_eventfd();  // cannot be flushed
  const int number = fd.get();
  RawDisk disk{loop, DiskFile{std::move(fd), "fake"}, DiskCache::Writeback};
  EXPECT_NE(flush(disk), 0);
  ASSERT_EQ(::dup2(image.fd(), number), number);  // could be now, but what was written before is lost
  EXPECT_NE(flush(disk), 0);
  RawDisk fresh{loop, DiskFile{duplicate(image.fd()), "image"}, DiskCache::Writeback};
  EXPECT_EQ(flush(fresh), 0);
}

}  // namespace
}  // namespace martlet::virtio
