#include "vmm/kvm/exit.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <memory>
#include <vector>

namespace martlet {
namespace {

/// Remembers what reached it; answers reads with a running number.
struct Recorder final : BusDevice {
  struct Access {
    Direction direction;
    std::uint64_t offset;
    std::vector<std::byte> data;
    bool operator==(const Access&) const = default;
  };
  std::vector<Access> accesses;
  std::uint8_t next = 1;

  void read(std::uint64_t offset, std::span<std::byte> data) noexcept override {
    for (auto& byte : data) {
      byte = std::byte{next++};
    }
    accesses.push_back({Direction::Read, offset, {data.begin(), data.end()}});
  }
  void write(std::uint64_t offset, std::span<const std::byte> data) noexcept override {
    accesses.push_back({Direction::Write, offset, {data.begin(), data.end()}});
  }
};

std::vector<std::byte> bytes(std::initializer_list<int> values) {
  std::vector<std::byte> result;
  for (const int value : values) {
    result.push_back(static_cast<std::byte>(value));
  }
  return result;
}

/// struct kvm_run with the page behind it where KVM puts the data of port I/O.
struct RunPage {
  static constexpr std::size_t kDataOffset = 4096;
  std::vector<std::uint64_t> storage = std::vector<std::uint64_t>(1024);
  kvm_run& run = *reinterpret_cast<kvm_run*>(storage.data());
  std::span<std::byte> data{reinterpret_cast<std::byte*>(storage.data()) + kDataOffset, 4096};

  void port_io(int direction, std::uint16_t port, std::uint8_t size, std::uint32_t count) {
    run.exit_reason = KVM_EXIT_IO;
    run.io.direction = static_cast<std::uint8_t>(direction);
    run.io.port = port;
    run.io.size = size;
    run.io.count = count;
    run.io.data_offset = kDataOffset;
  }
};

class Dispatch : public testing::Test {
 protected:
  Recorder port_device;
  Recorder mmio_device;
  Buses buses;
  RunPage page;

  Dispatch() {
    buses.ports.insert(0x3f8, 8, "port device", port_device);
    buses.mmio.insert(0xd0000000, 0x1000, "mmio device", mmio_device);
  }
};

TEST_F(Dispatch, StringOutputGoesItemByItemToTheSamePort) {
  Dispatcher dispatcher{buses};
  page.port_io(KVM_EXIT_IO_OUT, 0x3fa, 2, 3);
  std::ranges::copy(bytes({1, 2, 3, 4, 5, 6}), page.data.begin());
  ASSERT_TRUE(dispatcher.dispatch(decode(page.run)));
  EXPECT_EQ(port_device.accesses, (std::vector<Recorder::Access>{{Direction::Write, 2, bytes({1, 2})},
                                                                 {Direction::Write, 2, bytes({3, 4})},
                                                                 {Direction::Write, 2, bytes({5, 6})}}));
  EXPECT_EQ(dispatcher.counts().exits, 1U);
  EXPECT_EQ(dispatcher.counts().ports[0], 1U);
}

TEST_F(Dispatch, StringInputFillsTheDataInOrder) {
  Dispatcher dispatcher{buses};
  page.port_io(KVM_EXIT_IO_IN, 0x3f8, 4, 2);
  ASSERT_TRUE(dispatcher.dispatch(decode(page.run)));
  const auto expected = bytes({1, 2, 3, 4, 5, 6, 7, 8});
  EXPECT_TRUE(std::ranges::equal(page.data.first(8), expected));
}

TEST_F(Dispatch, ReadsThatNobodyAnswersGiveAllOnes) {
  Dispatcher dispatcher{buses};
  page.port_io(KVM_EXIT_IO_IN, 0x80, 4, 1);
  ASSERT_TRUE(dispatcher.dispatch(decode(page.run)));
  EXPECT_TRUE(std::ranges::equal(page.data.first(4), bytes({255, 255, 255, 255})));

  page.run.exit_reason = KVM_EXIT_MMIO;
  page.run.mmio.phys_addr = 0xd0000ffd;  // straddles the device's end
  page.run.mmio.len = 8;
  page.run.mmio.is_write = 0;
  ASSERT_TRUE(dispatcher.dispatch(decode(page.run)));
  EXPECT_EQ(page.run.mmio.data[7], 0xff);
  EXPECT_TRUE(mmio_device.accesses.empty());
  EXPECT_EQ(dispatcher.counts().ports.back(), 1U);
  EXPECT_EQ(dispatcher.counts().mmio.back(), 1U);
}

TEST_F(Dispatch, MmioOfEverySize) {
  Dispatcher dispatcher{buses};
  for (const std::uint32_t size : {1U, 2U, 4U, 8U}) {
    page.run.exit_reason = KVM_EXIT_MMIO;
    page.run.mmio.phys_addr = 0xd0000010;
    page.run.mmio.len = size;
    page.run.mmio.is_write = 1;
    ASSERT_TRUE(dispatcher.dispatch(decode(page.run)));
    EXPECT_EQ(mmio_device.accesses.back().offset, 0x10U);
    EXPECT_EQ(mmio_device.accesses.back().data.size(), size);
  }
}

TEST_F(Dispatch, WhatIsNoAccessIsTheCallers) {
  Dispatcher dispatcher{buses};
  struct Case {
    std::uint32_t reason;
    Ending::Kind kind;
  };
  for (const auto& [reason, kind] :
       {Case{KVM_EXIT_SHUTDOWN, Ending::Kind::TripleFault}, Case{KVM_EXIT_INTERNAL_ERROR, Ending::Kind::KvmError},
        Case{KVM_EXIT_FAIL_ENTRY, Ending::Kind::KvmError}, Case{KVM_EXIT_HLT, Ending::Kind::KvmError},
        Case{KVM_EXIT_DEBUG, Ending::Kind::KvmError}, Case{999, Ending::Kind::KvmError}}) {
    page.run.exit_reason = reason;
    const Exit exit = decode(page.run);
    EXPECT_FALSE(dispatcher.dispatch(exit)) << reason;
    const auto ending = ending_of(exit, 3);
    EXPECT_EQ(ending.kind, kind) << reason;
    EXPECT_EQ(ending.vcpu, 3);
    EXPECT_FALSE(ending.detail.empty());
  }
  page.run.exit_reason = KVM_EXIT_INTR;
  EXPECT_FALSE(dispatcher.dispatch(decode(page.run))) << "a kick is no access";
  EXPECT_EQ(dispatcher.counts().interrupted, 1U);
}

TEST_F(Dispatch, SystemEventsEndTheVmByTheirName) {
  Dispatcher dispatcher{buses};
  for (const auto& [type, kind] : {std::pair{KVM_SYSTEM_EVENT_SHUTDOWN, Ending::Kind::PowerOff},
                                   {KVM_SYSTEM_EVENT_RESET, Ending::Kind::Reset},
                                   {KVM_SYSTEM_EVENT_CRASH, Ending::Kind::Panic},
                                   {77, Ending::Kind::KvmError}}) {
    page.run.exit_reason = KVM_EXIT_SYSTEM_EVENT;
    page.run.system_event.type = static_cast<std::uint32_t>(type);
    const Exit exit = decode(page.run);
    EXPECT_FALSE(dispatcher.dispatch(exit));
    EXPECT_EQ(ending_of(exit, 0).kind, kind);
  }
}

}  // namespace
}  // namespace martlet
