// A driver with a vCPU to spare: as soon as the device has given malformed chains back it makes as many available
// again; or requests as large as they may be. None of them may keep the event loop from everybody else, a reset and
// --timeout included.

#include <gtest/gtest.h>
#include <sys/epoll.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "block_support.h"
#include "devices/virtio/console.h"
#include "devices/virtio/console_ports.h"
#include "devices/virtio/rng.h"
#include "net_fixture.h"
#include "qcow2_support.h"
#include "virtio_driver.h"

namespace martlet::virtio {
namespace {

class Storm final : public DriverInterrupts {
 public:
  static constexpr std::uint16_t kSize = 16;
  /// A device that is interested in so many rings full of nonsense in one go will never end.
  static constexpr int kEndless = 2000;

  /// How many of them it passed before it let others have their turn.
  int strike(VirtioDevice& device, std::uint16_t index) {
    static_cast<void>(driver_.make_queue(index));
    // All of the available ring names descriptor 0, and that lies nowhere.
    driver_.write(driver_.setup(index).descriptors, SplitDescriptor{.addr = 1ULL << 40U, .len = 1});
    index_ = index;
    device.start(kVersion1 | device.features(), *this);
    refill();
    device.start_queue(index, VirtQueue::make(driver_.memory(), driver_.setup(index), *this), driver_.kick_fd());
    device.notified(index);
    EXPECT_EQ(resets_wanted_, 0);
    device.stop();
    return refills_;
  }

 private:
  void refill() { driver_.set_avail_index(static_cast<std::uint16_t>(driver_.avail_index(index_) + kSize), index_); }
  void queue_used(std::uint16_t) noexcept override {
    if (++refills_ < kEndless) {
      refill();
    }
  }
  void config_changed() noexcept override {}
  void needs_reset() noexcept override { ++resets_wanted_; }
  [[nodiscard]] int call_fd(std::uint16_t) const noexcept override { return -1; }

  FakeDriver driver_{{.size = kSize, .queues = 6}};
  std::uint16_t index_ = 0;
  int refills_ = 0;
  int resets_wanted_ = 0;
};

void expect_an_end(VirtioDevice& device, std::uint16_t index) {
  Storm storm;
  const int passed = storm.strike(device, index);
  EXPECT_GT(passed, 0) << "queue " << index;
  EXPECT_LT(passed, Storm::kEndless) << "queue " << index;
}

TEST(MalformedStorm, DoesNotHoldTheLoopAtADisk) {
  EventLoop loop;
  Block block{loop, {}, std::make_unique<FakeDisk>(64 * kSector, FakeDisk::Answers::AtOnce)};
  expect_an_end(block, 0);
}

TEST(MalformedStorm, DoesNotHoldTheLoopAtANetworkCard) {
  EventLoop loop;
  auto backend = std::make_unique<FakeBackend>();
  Net net{loop, std::move(backend), {.mac = {2}}};
  for (std::uint16_t index = 0; index < 3; ++index) {
    expect_an_end(net, index);
  }
}

TEST(MalformedStorm, DoesNotHoldTheLoopAtAConsole) {
  EventLoop loop;
  Console console{loop, {.kind = SerialTarget::Kind::Null, .path = {}}};
  expect_an_end(console, 1);  // in the other nobody looks while there is nothing to tell
}

TEST(MalformedStorm, DoesNotHoldTheLoopAtNamedPorts) {
  EventLoop loop;
  ConsolePorts ports{loop, {{.name = "log"}, {.name = "agent"}}};
  for (std::uint16_t index = 1; index < 6; index += 2) {
    expect_an_end(ports, index);
  }
}

TEST(MalformedStorm, DoesNotHoldTheLoopAtTheEntropyDevice) {
  Rng rng;
  expect_an_end(rng, 0);
}

/// Moves nothing, and counts that.
class CountingDisk final : public Disk {
 public:
  std::uint64_t bytes = 0;
  [[nodiscard]] DiskShape shape() const noexcept override { return {.size = 1ULL << 40U}; }
  void submit(DiskRequest& request) noexcept override {
    bytes += request.work.length;
    std::uint64_t buffers = 0;
    for (const auto& buffer : request.work.buffers) {
      buffers += buffer.iov_len;
    }
    EXPECT_EQ(buffers, request.work.kind == DiskRequest::Kind::Discard ? 0 : request.work.length);
    request.done(0);
  }
  void commit() noexcept override {}
  void wait() noexcept override {}
};

constexpr std::uint64_t kMiB = 1U << 20U;

struct BlockStorm : testing::Test, BlockGuest {
  BlockStorm() : BlockGuest{Ring::Split} {}

  /// So many MiB, all of whose descriptors name the same 16.
  void transfer(BlockType type, std::uint64_t mebibytes) {
    auto chain = driver.chain();
    chain.readable(header(type));
    const auto flags = static_cast<std::uint16_t>(type == BlockType::In ? kWrite : 0);
    for (std::uint64_t i = 0; i < mebibytes; i += 16) {
      chain.raw({.addr = raw(memory), .len = 16 * kMiB, .flags = flags});
    }
    chain.writable(1).submit();
  }
  void discard(std::uint32_t ranges) {
    auto chain = driver.chain();
    chain.readable(header(BlockType::Discard));
    for (std::uint32_t i = 0; i < ranges; ++i) {
      chain.readable(BlockRange{.sector = 0, .sectors = 1U << 22U});
    }
    chain.writable(1).submit();
  }
  /// Kicks; how often the loop came round before so many requests were answered well. Calls `each` then.
  int turns(
      unsigned answers, const std::function<void()>& each = [] {}) {
    const Fd always = make_eventfd();
    signal_eventfd(always.get());
    int turns = 0;
    loop.watch(always.get(), EPOLLIN, [&](std::uint32_t) {
      ++turns;
      each();
      while (const auto answer = take_answer()) {
        EXPECT_EQ(answer->status, BlockStatus::Ok);
        --answers;
      }
      if (answers == 0) {
        loop.stop();
      }
    });
    block->notified(0);
    loop.run();
    loop.unwatch(always.get());
    return turns;
  }
  /// An empty one of 2 GiB.
  void attach_qcow2() {
    const test::TempDir folder;
    const auto path = folder.file("image");
    ASSERT_EQ(qcow2_test::shell("qemu-img create -qf qcow2 " + path + " 2G"), 0);
    auto image = std::make_unique<MemoryImage>(qcow2_test::load(path), 1);
    attach(std::make_unique<Qcow2Disk>(
        std::make_unique<Qcow2Stack>(std::make_unique<Qcow2Image>(std::move(image), DiskAccess::ReadWrite), nullptr,
                                     nullptr),
        DiskAccess::ReadWrite, DiskCache::Writeback));
  }
  GuestAddr memory = driver.allocate(16 * kMiB, 4096);
};

TEST_F(BlockStorm, HugeRequestsDoNotHoldTheLoop) {
  auto counting = std::make_unique<CountingDisk>();
  auto& bytes = counting->bytes;
  attach(std::move(counting));
  transfer(BlockType::In, 256);
  transfer(BlockType::Out, 256);
  discard(1);
  std::uint64_t all = 0;
  std::uint64_t most = 0;  // in one turn
  turns(3, [&] {
    most = std::max(most, bytes);
    all += std::exchange(bytes, 0);
  });
  EXPECT_EQ(all, 2560 * kMiB);
  EXPECT_LE(most, 128 * kMiB);
}

TEST_F(BlockStorm, HugeReadsOfNothingDoNotHoldTheLoop) {
  attach_qcow2();
  transfer(BlockType::In, 128);
  transfer(BlockType::In, 128);
  EXPECT_GE(turns(2), 4);
}

TEST_F(BlockStorm, HugeDiscardsOfNothingDoNotHoldTheLoop) {
  attach_qcow2();
  discard(16);
  EXPECT_GE(turns(1), 100);
}

TEST_F(BlockStorm, AQueueThatStopsEndsHugeRequests) {
  attach(std::make_unique<CountingDisk>());
  transfer(BlockType::In, 512);
  block->notified(0);
  block->stop();
  const auto answer = take_answer();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, BlockStatus::IoError);
  EXPECT_EQ(driver.in_flight(), 0U);
}

}  // namespace
}  // namespace martlet::virtio
