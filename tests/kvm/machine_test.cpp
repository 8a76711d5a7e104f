// The machine that a guest sees. Each guest checks it from inside (tests/guest) and prints what it misses.

#include <gtest/gtest.h>

#include <charconv>
#include <cstdint>
#include <ctime>
#include <iomanip>
#include <regex>
#include <sstream>

#include "tests/kvm/martlet.h"

namespace martlet::test {
namespace {

/// It found all as it should be, and said so last.
void expect_satisfied(const Ended& guest, std::string_view last_words) {
  EXPECT_EQ(guest.exit_code, 0) << guest;
  EXPECT_EQ(guest.out.find("FAILED"), std::string::npos) << guest;
  EXPECT_TRUE(guest.out.ends_with(last_words)) << guest;
}

TEST(Entry, HandsOverTheCommandLine) {
  const auto guest = run_martlet({.name = "command_line", .append = "one two=\"2 3\"  four"});
  EXPECT_EQ(guest.out, "[console=ttyS0 panic=-1 one two=\"2 3\"  four]\n") << guest;
  EXPECT_EQ(guest.exit_code, 0) << guest;
}

TEST(Entry, TheGuestsOwnParametersWin) {
  const auto guest = run_martlet({.name = "command_line", .append = "console=tty0 panic=5"});
  EXPECT_EQ(guest.out, "[console=tty0 panic=5]\n") << guest;
}

TEST(Entry, ExceptionsReachTheGuest) { expect_satisfied(run_martlet({.name = "fault"}), "faults done\n"); }

TEST(Cpuid, NamesKvm) {
  const auto guest = run_martlet({.name = "cpu"});
  EXPECT_EQ(guest.exit_code, 0) << guest;
  EXPECT_TRUE(guest.out.starts_with("hypervisor KVMKVMKVM\n")) << guest;
}

TEST(Cpuid, LaysOutCpusAsCoresOfOnePackage) {
  const auto guest = run_martlet({.name = "cpu", .options = {"-c", "6"}});
  EXPECT_EQ(guest.exit_code, 0) << guest;
  EXPECT_NE(guest.out.find("level 0 threads 1 shift 0\n"), std::string::npos) << guest;
  EXPECT_NE(guest.out.find("level 1 cores 6 shift 3\n"), std::string::npos) << guest;
}

TEST(Ports, OfEveryWidthAndStringsBothWays) {
  const auto guest = run_martlet({.name = "ports"});
  expect_satisfied(guest, "\nports done\n");
  EXPECT_TRUE(guest.out.starts_with("every byte of a string, in order\n")) << guest;
  std::string many;
  for (int i = 0; i < 10000; ++i) {
    many += i % 80 == 79 ? '\n' : static_cast<char>('a' + i % 26);
  }
  EXPECT_NE(guest.out.find(many), std::string::npos) << guest;
}

TEST(Mmio, OfEveryWidthBothWays) { expect_satisfied(run_martlet({.name = "mmio"}), "mmio done\n"); }

TEST(Timers, AllInterrupt) {
  const auto guest = run_martlet({.name = "timers"});
  EXPECT_EQ(guest.exit_code, 0) << guest;
  EXPECT_TRUE(guest.out.starts_with("PIT 10\nAPIC one-shot 10\nAPIC periodic 10\nTSC deadline ")) << guest;
}

TEST(Clock, TellsTheHostsDateInUtc) {
  const auto before = std::time(nullptr);
  const auto guest = run_martlet({.name = "clock"});
  const auto after = std::time(nullptr);
  std::tm date{};
  std::istringstream{guest.out} >> std::get_time(&date, "%Y-%m-%dT%H:%M:%SZ");
  const auto told = ::timegm(&date);
  EXPECT_GE(told, before - 1) << guest;
  EXPECT_LE(told, after + 1) << guest;
}

class Cpus : public testing::TestWithParam<std::pair<int, const char*>> {};

TEST_P(Cpus, AllStartAndInterruptEachOther) {
  const auto [count, mode] = GetParam();
  const auto guest = run_martlet({.name = "smp", .append = mode, .options = {"-c", std::to_string(count)}});
  const auto number = std::to_string(count);
  expect_satisfied(guest, "cpus " + number + " last id " + std::to_string(count - 1) + "\n");
}

INSTANTIATE_TEST_SUITE_P(Local, Cpus,
                         testing::Values(std::pair{1, "apic=x"}, std::pair{2, "apic=x"}, std::pair{4, "apic=x"},
                                         std::pair{1, "apic=x2"}, std::pair{4, "apic=x2"}, std::pair{64, "apic=x2"}),
                         [](const auto& instance) {
                           return std::to_string(instance.param.first) +
                                  (std::string_view{instance.param.second} == "apic=x" ? "Apic" : "X2Apic");
                         });

// APIC ids of 255 and more do not fit the memory-mapped APIC, nor the MADT's first kind of entry.
TEST(ManyCpus, ThreeHundredStartAndInterruptEachOther) {
  const auto guest = run_martlet({.name = "smp", .append = "apic=x2", .options = {"-c", "300"}});
  expect_satisfied(guest, "cpus 300 last id 299\n");
}

/// Bytes of RAM, by the map that the guest was given.
std::uint64_t ram_of(const Ended& guest) {
  std::smatch found;
  std::uint64_t bytes = 0;
  if (std::regex_search(guest.out, found, std::regex{"\nram ([0-9]+) words"})) {
    const std::string digits = found[1];
    std::from_chars(digits.data(), digits.data() + digits.size(), bytes);
  }
  return bytes;
}

constexpr std::uint64_t kMiB = 1U << 20U;

TEST(Memory, TheSmallestIsWhole) {
  const auto guest = run_martlet({.name = "memory", .append = "stride=1", .options = {"-m", "2M"}});
  EXPECT_EQ(guest.exit_code, 0) << guest;
  EXPECT_GT(ram_of(guest), 1 * kMiB) << guest;
}

TEST(Memory, EveryLargePageIsThere) {
  const auto guest = run_martlet({.name = "memory", .append = "stride=2", .options = {"-m", "256M"}});
  EXPECT_EQ(guest.exit_code, 0) << guest;
  EXPECT_GT(ram_of(guest), 255 * kMiB) << guest;
}

// From here on in larger strides: the host clears each large page that the guest touches.
TEST(Memory, TwoGiBBelowTheHole) {
  const auto guest = run_martlet({.name = "memory", .append = "stride=32", .options = {"-m", "2G"}});
  EXPECT_EQ(guest.exit_code, 0) << guest;
  EXPECT_GT(ram_of(guest), 2047 * kMiB) << guest;
  EXPECT_LE(ram_of(guest), 2048 * kMiB) << guest;
  EXPECT_EQ(guest.out.find("map 0x100000000 "), std::string::npos) << guest;
}

TEST(Memory, FiveGiBAroundTheHole) {
  const auto guest = run_martlet({.name = "memory", .append = "stride=32", .options = {"-m", "5G"}});
  EXPECT_EQ(guest.exit_code, 0) << guest;
  EXPECT_GT(ram_of(guest), 5119 * kMiB) << guest;
  EXPECT_LE(ram_of(guest), 5120 * kMiB) << guest;
  EXPECT_NE(guest.out.find("map 0x100000000 0x80000000 1\n"), std::string::npos) << guest;
}

TEST(Memory, SharedMemoryIsMemoryToo) {
  const auto guest = run_martlet({.name = "memory", .append = "stride=16", .options = {"-m", "4G,shared=on"}});
  EXPECT_EQ(guest.exit_code, 0) << guest;
  EXPECT_GT(ram_of(guest), 4095 * kMiB) << guest;
}

// Whatever a guest does to ports and addresses, it can leave in good order afterwards.
class Hostile : public testing::TestWithParam<const char*> {};

TEST_P(Hostile, GuestEndsItselfAndNothingElse) {
  const auto guest = run_martlet({.name = "hostile", .append = GetParam()});
  EXPECT_EQ(guest.exit_code, 42) << guest;
  EXPECT_TRUE(guest.out.ends_with("\nsurvived\n")) << guest;
}

INSTANTIATE_TEST_SUITE_P(All, Hostile, testing::Values("size=1", "size=2", "size=4", "mmio=30000"),
                         [](const auto& instance) {
                           return std::regex_replace(std::string{instance.param}, std::regex{"="}, "");
                         });

}  // namespace
}  // namespace martlet::test
