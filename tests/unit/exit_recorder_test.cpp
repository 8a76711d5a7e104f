#include "vmm/kvm/exit_recorder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <sstream>
#include <string>

namespace martlet {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
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
  EXPECT_EQ(records[4].what, What::Shutdown);
  EXPECT_LE(records[0].left, records[4].left);

  const auto table = recorder.table();
  EXPECT_THAT(table, HasSubstr("write  uart                          1"));
  EXPECT_THAT(table, HasSubstr("read   ecam                          1"));
  EXPECT_THAT(table, HasSubstr("kicks"));
}

/// The counts of the table's lines, by their names.
std::map<std::string, int> counts_of(const std::string& table) {
  std::map<std::string, int> counts;
  std::istringstream lines{table};
  for (std::string line; std::getline(lines, line);) {
    const auto name = line.substr(2, 27);
    counts[name.substr(0, name.find_last_not_of(' ') + 1)] = std::stoi(line.substr(29));
  }
  return counts;
}

TEST_F(Recorder, CountsByReasonByDeviceAndByAddress) {
  ExitRecorder recorder{buses, 1};
  for (int i = 0; i < 3; ++i) {
    exit(recorder, write_port(0x3f8));
  }
  exit(recorder, write_port(0x3f9));
  exit(recorder, PortIo{.direction = Direction::Read, .size = 1, .port = 0x3f8, .data = std::span{data}.first(1)});
  exit(recorder, write_port(0x80));
  exit(recorder, Mmio{.direction = Direction::Read, .addr = GuestAddr{0xe0000004}, .data = std::span{data}.first(4)});
  exit(recorder, Shutdown{});
  exit(recorder, Debug{});
  exit(recorder, Debug{});
  exit(recorder, KvmFault{});
  EXPECT_THAT(counts_of(recorder.table()),
              ElementsAre(Pair("MMIO reads", 1), Pair("debug exits", 2), Pair("errors", 1), Pair("port reads", 1),
                          Pair("port writes", 5), Pair("read   0x3f8 uart", 1), Pair("read   0xe0000004 ecam", 1),
                          Pair("read   ecam", 1), Pair("read   uart", 1), Pair("shutdowns", 1),
                          Pair("write  0x3f8 uart", 3), Pair("write  0x3f9 uart", 1),
                          Pair("write  0x80 other ports", 1), Pair("write  other ports", 1), Pair("write  uart", 4)));
}

// However many there are, they take no more room, and none is lost.
TEST_F(Recorder, ShowsTheAddressesThatHadMost) {
  ExitRecorder recorder{buses, 1};
  for (std::uint32_t port = 0; port < 0x10000; ++port) {
    exit(recorder, write_port(static_cast<std::uint16_t>(port)));
  }
  exit(recorder, write_port(0x90));
  const auto table = recorder.table();
  const auto counts = counts_of(table);
  EXPECT_EQ(counts.at("write  0x90 other ports"), 2);
  EXPECT_EQ(counts.at("write  0x0 other ports"), 1);
  EXPECT_EQ(counts.at("all other addresses"), 0x10000 - 32);
  EXPECT_EQ(std::ranges::count(table, '\n'), 1 + 2 + 32 + 1);
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
