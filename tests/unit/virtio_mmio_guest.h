#pragma once
// What the tests of the MMIO transport share: a guest with one device, and the driver's habits.

#include <gtest/gtest.h>

#include <array>
#include <optional>
#include <set>
#include <span>
#include <tuple>

#include "devices/virtio/mmio.h"
#include "tests/unit/virtio_recorder.h"

namespace martlet::virtio {

inline constexpr std::array<GuestRange, 1> kRam{GuestRange{GuestAddr{0}, 0x40000}};
inline constexpr GuestAddr kBase{0xfe000000};
inline constexpr std::uint32_t kReady = kAcknowledge | kDriver | kFeaturesOk;
inline constexpr std::uint32_t kRunning = kReady | kDriverOk;
inline constexpr std::uint32_t kUsed = 1, kConfig = 2;

// Linux' names (include/uapi/linux/virtio_mmio.h), so that the scripts below read like its driver.
enum MmioRegister : std::uint64_t {
  MAGIC_VALUE = 0x00,
  VERSION = 0x04,
  DEVICE_ID = 0x08,
  VENDOR_ID = 0x0c,
  DEVICE_FEATURES = 0x10,
  DEVICE_FEATURES_SEL = 0x14,
  DRIVER_FEATURES = 0x20,
  DRIVER_FEATURES_SEL = 0x24,
  QUEUE_SEL = 0x30,
  QUEUE_NUM_MAX = 0x34,
  QUEUE_NUM = 0x38,
  QUEUE_READY = 0x44,
  QUEUE_NOTIFY = 0x50,
  INTERRUPT_STATUS = 0x60,
  INTERRUPT_ACK = 0x64,
  STATUS = 0x70,
  QUEUE_DESC_LOW = 0x80,
  QUEUE_DESC_HIGH = 0x84,
  QUEUE_AVAIL_LOW = 0x90,
  QUEUE_AVAIL_HIGH = 0x94,
  QUEUE_USED_LOW = 0xa0,
  QUEUE_USED_HIGH = 0xa4,
  SHM_LEN_LOW = 0xb0,
  SHM_BASE_HIGH = 0xbc,
  QUEUE_RESET = 0xc0,
  CONFIG_GENERATION = 0xfc,
  CONFIG = 0x100,
};

struct MmioBells final : Doorbells {
  bool add(GuestAddr /*addr*/, int /*eventfd*/) noexcept override { return false; }
  void remove(GuestAddr /*addr*/, int /*eventfd*/) noexcept override {}
  bool add_value(GuestAddr addr, std::uint32_t value, int eventfd) noexcept override {
    return room-- > 0 && all.emplace(raw(addr), value, eventfd).second;
  }
  void remove_value(GuestAddr addr, std::uint32_t value, int eventfd) noexcept override {
    EXPECT_EQ(all.erase({raw(addr), value, eventfd}), 1U);
  }
  std::set<std::tuple<std::uint64_t, std::uint32_t, int>> all;
  int room = 100;
};

struct MmioGuest {
  std::uint64_t in(std::uint64_t offset, std::size_t width = 4) {
    std::uint64_t value = ~0ULL;
    mmio->read(offset, std::as_writable_bytes(std::span{&value, 1}).first(width));
    return width == 8 ? value : value & ((1ULL << width * 8) - 1);
  }
  void out(std::uint64_t offset, std::uint64_t value, std::size_t width = 4) {
    mmio->write(offset, std::as_bytes(std::span{&value, 1}).first(width));
  }
  void accept(std::uint64_t features) {
    for (const unsigned word : {0U, 1U}) {
      out(DRIVER_FEATURES_SEL, word);
      out(DRIVER_FEATURES, features >> (word * 32) & 0xffff'ffff);
    }
  }
  /// Until FEATURES_OK (§3.1.1), as Linux' virtio core does.
  void negotiate(std::uint64_t features = kVersion1) {
    out(STATUS, 0);
    out(STATUS, in(STATUS) | kAcknowledge);
    out(STATUS, in(STATUS) | kDriver);
    accept(features);
    out(STATUS, in(STATUS) | kFeaturesOk);
  }
  static std::uint64_t ring(std::uint64_t index) { return 0x1000 + index * 0x4000; }
  /// §4.2.3.2
  void set_up(std::uint64_t index, std::uint64_t size = 8) {
    out(QUEUE_SEL, index);
    out(QUEUE_NUM, size);
    out(QUEUE_DESC_LOW, ring(index));
    out(QUEUE_DESC_HIGH, 0);
    out(QUEUE_AVAIL_LOW, ring(index) + 0x1000);
    out(QUEUE_AVAIL_HIGH, 0);
    out(QUEUE_USED_LOW, ring(index) + 0x2000);
    out(QUEUE_USED_HIGH, 0);
    out(QUEUE_READY, 1);
  }
  /// One request of 16 bytes to write, in a split ring that was fresh.
  void offer(std::uint64_t index) {
    const SplitDescriptor descriptor{.addr = 0x30000, .len = 16, .flags = kWrite, .next = 0};
    const std::array<std::uint16_t, 3> avail{0, 1, 0};  // flags, idx, ring[0]
    ASSERT_TRUE(memory.write(GuestAddr{ring(index)}, descriptor));
    ASSERT_TRUE(memory.write(GuestAddr{ring(index) + 0x1000}, avail));
    ASSERT_TRUE(memory.write(GuestAddr{ring(index) + 0x2000}, std::uint32_t{0}));
    out(QUEUE_NOTIFY, index);
  }
  std::uint16_t used_index(std::uint64_t index) const {
    return memory.read<std::uint16_t>(GuestAddr{ring(index) + 0x2002}).value();
  }
  void run() { out(STATUS, in(STATUS) | kDriverOk); }
  std::uint64_t edges() { return drain_counter(irq.fd()); }

  EventLoop loop;
  GuestMemory memory{kRam};
  RecordingDevice device{loop};
  IrqLine irq;
  MmioBells bells;
  std::optional<VirtioMmio> mmio{
      std::in_place,
      VirtioMmio::Wiring{
          .device = device, .memory = memory, .loop = loop, .irq = irq, .doorbells = bells, .base = kBase}};
};

}  // namespace martlet::virtio
