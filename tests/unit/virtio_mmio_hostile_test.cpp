#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>
#include <tuple>
#include <vector>

#include "tests/unit/virtio_mmio_guest.h"

namespace martlet::virtio {
namespace {

using ::testing::ElementsAre;

/// Every register, at every width and every status, with hostile values: the device runs if and only if
/// DRIVER_OK is set, what is enabled starts as it was set up or not at all, and a reset heals everything.
TEST(VirtioMmioHostile, EveryRegisterAtEveryStatus) {
  MmioGuest m;
  using Script = void (*)(MmioGuest&);
  // From the fifth on, queue 0 is set up.
  constexpr std::size_t kWithQueue = 4;
  const Script scripts[] = {
      [](MmioGuest&) {},
      [](MmioGuest& g) { g.out(STATUS, kAcknowledge); },
      [](MmioGuest& g) { g.out(STATUS, kAcknowledge | kDriver); },
      [](MmioGuest& g) { g.negotiate(); },
      [](MmioGuest& g) { g.negotiate(), g.set_up(0); },
      [](MmioGuest& g) { g.negotiate(kVersion1 | kRingReset), g.set_up(0), g.set_up(1, 256); },
      [](MmioGuest& g) { g.negotiate(kVersion1 | kRingReset), g.set_up(0), g.run(); },
      [](MmioGuest& g) { g.negotiate(), g.set_up(0), g.out(QUEUE_SEL, ~0U), g.run(); },
      [](MmioGuest& g) { g.negotiate(), g.set_up(0), g.set_up(1, 7), g.run(); },  // NEEDS_RESET
      [](MmioGuest& g) { g.negotiate(), g.set_up(0), g.run(), g.out(STATUS, kFailed); },
  };
  constexpr std::uint64_t kValues[] = {0,      1,       2,           3,           kRunning,    kNeedsReset, 0xff, 0x100,
                                       0x8000, 0x10001, 0xffff'fff0, 0x7fff'ffff, 0x8000'0000, 0xffff'ffff, ~0ULL};
  std::vector<std::uint64_t> offsets{0x101, 0x1fc, 0xff8};
  for (std::uint64_t offset = 0; offset <= CONFIG; ++offset) {
    offsets.push_back(offset);
  }
  const auto pristine = [&] {
    return std::tuple{m.in(STATUS),          m.in(INTERRUPT_STATUS), m.in(QUEUE_READY),
                      m.in(DEVICE_FEATURES), m.in(QUEUE_NUM_MAX),    m.device.started()};
  };
  const auto fresh = pristine();
  for (std::size_t script = 0; script < std::size(scripts); ++script) {
    for (const auto offset : offsets) {
      for (const std::size_t width : {1U, 2U, 4U, 8U}) {
        // Odd widths and places are ignored, whatever the value (RegistersIgnoreOtherWidths).
        const std::size_t values = width == 4 && offset % 4 == 0 ? std::size(kValues) : 1;
        for (const auto value : std::span{kValues}.last(values)) {
          scripts[script](m);
          m.out(offset, value, width);
          m.in(offset, width);
          const bool runs = (m.in(STATUS)&kDriverOk) != 0;
          ASSERT_EQ(m.device.started(), runs) << std::hex << offset << " = " << value;
          m.out(STATUS, 0xf);
          const auto queue = m.device.queue(0);
          if (script >= kWithQueue && queue.size != 0) {
            ASSERT_EQ(queue.size, 8) << std::hex << offset << " = " << value;
            ASSERT_EQ(raw(queue.descriptors), MmioGuest::ring(0));
            ASSERT_EQ(raw(queue.driver), MmioGuest::ring(0) + 0x1000);
            ASSERT_EQ(raw(queue.device), MmioGuest::ring(0) + 0x2000);
          }
          m.out(STATUS, 0);
          ASSERT_EQ(pristine(), fresh) << std::hex << offset << " = " << value;
        }
      }
    }
  }
}

TEST(VirtioMmioHostile, TwoProcessorsMayFightOverIt) {
  MmioGuest m;
  const RunningLoop running{m.loop};
  m.device.echoes = true;
  const auto fight = [&](unsigned seed) {
    std::mt19937 random{seed};
    constexpr std::uint64_t kFavourites[] = {STATUS,    QUEUE_SEL,     QUEUE_READY,     QUEUE_RESET,     QUEUE_NOTIFY,
                                             QUEUE_NUM, INTERRUPT_ACK, DRIVER_FEATURES, QUEUE_AVAIL_LOW, CONFIG};
    for (int i = 0; i < 2000; ++i) {
      switch (random() % 8) {
        case 0:
          m.negotiate(kVersion1 | kRingReset);
          break;
        case 1:
          m.set_up(random() % 4, random() % 3 * 8);
          break;
        case 2:
          m.run();
          break;
        case 3:
          m.in(random() % 0x200, 1U << random() % 4);
          break;
        case 4:
          m.out(random() % 0x100 & ~3ULL, random());
          break;
        default:
          m.out(kFavourites[random() % std::size(kFavourites)], random() % 4);
      }
    }
  };
  std::thread other{fight, 1};
  fight(2);
  other.join();
  m.negotiate();
  m.set_up(0);
  m.device.take_log();
  m.run();
  EXPECT_THAT(m.device.take_log(), ElementsAre("start 4294967296", "start 0 size 8"));
}

}  // namespace
}  // namespace martlet::virtio
