// A driver with a vCPU to spare: as soon as the device has given malformed chains back it makes as many available
// again. None of them may keep the event loop from everybody else, a reset and --timeout included.

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <utility>

#include "block_support.h"
#include "devices/virtio/console.h"
#include "devices/virtio/rng.h"
#include "net_fixture.h"
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
  const SerialTarget nowhere{.kind = SerialTarget::Kind::Null, .path = {}};
  Console console{loop, {.target = nowhere, .ports = {{.name = "agent", .target = nowhere}}}};
  for (std::uint16_t index = 1; index < 6; index += 2) {  // in the others nobody looks while there is nothing to tell
    expect_an_end(console, index);
  }
}

TEST(MalformedStorm, DoesNotHoldTheLoopAtTheEntropyDevice) {
  Rng rng;
  expect_an_end(rng, 0);
}

}  // namespace
}  // namespace martlet::virtio
