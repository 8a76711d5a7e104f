#include "vmm/kvm/exit_recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

namespace martlet {
namespace {

using ::testing::HasSubstr;
using What = ExitRecord::What;

struct Nothing final : BusDevice {
  void read(std::uint64_t, std::span<std::byte>) noexcept override {}
  void write(std::uint64_t, std::span<const std::byte>) noexcept override {}
};

class Recorder : public ::testing::Test {
 protected:
  Recorder() {
    buses.ports.insert(0x3f8, 8, "uart", device);
    buses.mmio.insert(0xe0000000, 0x1000, "ecam", device);
  }

  void exit(ExitRecorder& recorder, const Exit& exit) {
    recorder.left_guest();
    recorder.served(exit);
  }
  Exit write_port(std::uint16_t port) {
    return PortIo{.direction = Direction::Write, .size = 1, .port = port, .data = std::span{data}.first(1)};
  }

  Nothing device;
  Buses buses;
  std::array<std::byte, 8> data{std::byte{0x41}, std::byte{0x42}};
};

TEST_F(Recorder, KeepsWhatEachExitWas) {
  ExitRecorder recorder{buses, 10};
  exit(recorder, write_port(0x3f8));
  exit(recorder, Mmio{.direction = Direction::Read, .addr = GuestAddr{0xe0000004}, .data = std::span{data}.first(2)});
  exit(recorder, write_port(0x99));
  exit(recorder, Interrupted{});
  exit(recorder, Shutdown{});

  const auto records = recorder.last();
  ASSERT_EQ(records.size(), 5U);
  EXPECT_EQ(records[0].what, What::PortWrite);
  EXPECT_EQ(records[0].addr, 0x3f8U);
  EXPECT_EQ(records[0].value, 0x41U);
  EXPECT_EQ(recorder.name_of(records[0]), "uart");
  EXPECT_EQ(records[1].what, What::MmioRead);
  EXPECT_EQ(records[1].size, 2);
  EXPECT_EQ(records[1].value, 0x4241U);
  EXPECT_EQ(recorder.name_of(records[1]), "ecam");
  EXPECT_EQ(recorder.name_of(records[2]), "other ports");
  EXPECT_EQ(records[3].what, What::Interrupted);
  EXPECT_EQ(records[4].what, What::Other);
  EXPECT_LE(records[0].left, records[4].left);

  const auto table = recorder.table();
  EXPECT_THAT(table, HasSubstr("write  uart                          1"));
  EXPECT_THAT(table, HasSubstr("read   ecam                          1"));
  EXPECT_THAT(table, HasSubstr("kick"));
}

TEST_F(Recorder, ForgetsTheOldestFirst) {
  ExitRecorder recorder{buses, 3};
  for (std::uint16_t i = 0; i < 8; ++i) {
    exit(recorder, write_port(i));
  }
  EXPECT_EQ(recorder.count(), 8U);
  const auto records = recorder.last();
  ASSERT_EQ(records.size(), 3U);
  EXPECT_EQ(records[0].addr, 5U);
  EXPECT_EQ(records[2].addr, 7U);
}

TEST_F(Recorder, AStringOfItemsIsOneExit) {
  ExitRecorder recorder{buses, 3};
  std::array<std::byte, 4096> many{};
  exit(recorder, PortIo{.direction = Direction::Read, .size = 2, .port = 0x3f8, .data = many});
  ASSERT_EQ(recorder.last().size(), 1U);
  EXPECT_EQ(recorder.last()[0].size, 2);
}

}  // namespace
}  // namespace martlet
