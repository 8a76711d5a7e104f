// Machines with every virtio device, told of by wires. Runs on fresh-ground, which has br0 at 10.77.0.1.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <thread>
#include <utility>

#include "tests/boot/virtio_guest.h"

namespace martlet::test {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

constexpr std::uint64_t kMiB = 1ULL << 20U;

/// Writes to `file` what comes on port 1001.
Subprocess listener(const std::string& file) {
  return Subprocess{
      {.command = {"sh", "-c", "exec busybox nc -l -p 1001 >\"$0\"", file}, .input = Subprocess::Input::Pipe}};
}

struct Case {
  std::string name;
  std::string kernel;
  std::string transport;
  std::string append;
};
void PrintTo(const Case& a_case, std::ostream* stream) { *stream << a_case.name; }

class VirtioMachine : public ::testing::TestWithParam<Case> {};

// The same bytes by every way out.
constexpr std::string_view kEverything = R"sh(
{ head -c 4096 /dev/hwrng && head -c 2093056 /dev/urandom; } >/tmp/mine  # 2 MiB
disk=$(disk all)
dd if=/tmp/mine of=$disk bs=64k oflag=direct 2>/dev/null || exit 2
say disk sh -c "dd if=$disk iflag=direct bs=64k 2>/dev/null | sha256sum"
up 10.77.0.2
say pings reach 10.77.0.1
nc 10.77.0.1 1001 </tmp/mine >/dev/null || exit 3
cat /tmp/mine >/dev/$(port log) || exit 4
await sh -c ": <>/dev/hvc0"
exec 3<>/dev/hvc0
stty raw -echo <&3
head -c 65536 /tmp/mine >&3
say mine sha256sum </tmp/mine
kernel_says
)sh";

TEST_P(VirtioMachine, EveryDeviceWorksByWire) {
  const auto& parameters = GetParam();
  const TempDir directory;
  const auto path = [&](std::string_view name) { return directory.file(name); };
  make_file(path("disk"), 2 * kMiB);
  auto network = listener(path("network"));
  const Report report{boot({.kernel = parameters.kernel,
                            .append = "console=ttyS0 " + parameters.append,
                            .more = {"--transport", parameters.transport, "-d", "path=" + path("disk") + ",serial=all",
                                     "-n", "bridge=br0,vhost=off", "--console", "file=" + path("console"), "--port",
                                     "name=log,file=" + path("log"), "--rng"},
                            .script = std::string{kVirtioPrelude}.append(kEverything)})};
  expect_good(report);
  EXPECT_EQ(network.wait().exit_code, 0);
  EXPECT_THAT(report.section("pings"), ElementsAre("0% packet loss"));
  EXPECT_EQ(report.section("disk"), report.section("mine"));
  for (const auto* copy : {"disk", "network", "log"}) {
    EXPECT_THAT(report.section("mine"), ElementsAre(sha256_of(path(copy)) + "  -")) << copy;
  }
  EXPECT_TRUE(read_file(path("console")) == read_file(path("log")).substr(0, 65536));

  EXPECT_THAT(report.section("rings"), AllOf(SizeIs(5), Each(EndsWith(" packed"))));
  for (int device = 0; device < 5; ++device) {
    EXPECT_GE(interrupts(report, fmt::format("IO-APIC.* virtio{}\\b", device)), 1U) << device;
  }
  EXPECT_THAT(report.section("interrupts"), Each(Not(HasSubstr("PCI-MSI"))));
}

INSTANTIATE_TEST_SUITE_P(Stock, VirtioMachine,
                         ::testing::Values(Case{"Intx", "cloud-6.1", "pci", "pci=nomsi"},
                                           Case{"Mmio", "cloud-6.12", "mmio", ""}),
                         [](const auto& a_case) { return a_case.param.name; });

// By the guest's own clock, in hundredths of a second.
constexpr std::string_view kPaced = R"sh(
now() { sed 's/ .*//; s/[.]//' /proc/uptime; }
took() {
  start=$(now)
  "$@" 2>/dev/null || exit 2
  echo $(($(now) - start))
}
say bytes took dd if=/dev/zero of=$(disk bytes) bs=64k count=32 oflag=direct
say requests took dd if=$(disk requests) of=/dev/null bs=4k count=100 iflag=direct
up 10.77.0.2
say network took sh -c "dd if=/dev/zero bs=64k count=32 | nc 10.77.0.1 1001 >/dev/null"
kernel_says
)sh";

// Only too fast is wrong: a slow host takes longer.
TEST(VirtioRates, NoGuestIsFasterThanItMay) {
  const TempDir directory;
  const auto disk = directory.file("disk");
  make_file(disk, 2 * kMiB);
  make_file(directory.file("another"), 2 * kMiB);
  auto network = listener(directory.file("network"));
  const Report report{boot({.more = {"-d", "path=" + disk + ",serial=bytes,rate=1M,burst=128K", "-d",
                                     "path=" + directory.file("another") + ",serial=requests,iops=50,iops_burst=10",
                                     "-n", "bridge=br0,rate=1M,burst=128K"},
                            .script = std::string{kVirtioPrelude}.append(kPaced)})};
  expect_good(report);
  EXPECT_EQ(network.wait().exit_code, 0);
  EXPECT_EQ(read_file(directory.file("network")).size(), 2 * kMiB);
  for (const auto* section : {"bytes", "requests", "network"}) {  // each is good for 1.8 s or more
    ASSERT_THAT(report.section(section), SizeIs(1));
    EXPECT_GE(std::stoi(report.section(section)[0]), 150) << section;
  }
}

/// What came from the guests on br0, and when: their TAPs' counters.
std::pair<std::uint64_t, std::chrono::steady_clock::time_point> received() {
  const auto told = run({.command = {"ip", "-j", "-s", "link", "show", "master", "br0"}});
  const auto now = std::chrono::steady_clock::now();
  std::uint64_t bytes = 0;
  for (const auto& port : nlohmann::json::parse(told.out)) {
    bytes += port["stats64"]["rx"]["bytes"].get<std::uint64_t>();
  }
  return {bytes, now};
}

// Where nothing else keeps the CPUs busy: what a late event loop missed beyond a burst is lost.
TEST(VirtioShaping, WhatAGuestSendsIsItsRateWithinFivePercent) {
  constexpr double kRate = 200 * 1024;  // so little that any host can do it
  auto network = listener("/dev/null");
  RunningGuest running{
      {.more = {"-n", "bridge=br0,rate=200K,burst=64K"},
       .script = std::string{kVirtioPrelude} +
                 "up 10.77.0.2\necho SENDING\ndd if=/dev/zero bs=64k | nc 10.77.0.1 1001 >/dev/null\n"}};
  ASSERT_TRUE(running.process().wait_for("SENDING")) << running.wait();
  auto begin = received();
  for (int tries = 0; tries < 600 && begin.first < 128 * 1024; ++tries) {  // past its burst
    std::this_thread::sleep_for(std::chrono::milliseconds{100});
    begin = received();
  }
  std::this_thread::sleep_for(std::chrono::seconds{10});
  const auto end = received();
  const double rate =
      static_cast<double>(end.first - begin.first) / std::chrono::duration<double>(end.second - begin.second).count();
  EXPECT_NEAR(rate, kRate, kRate / 20);
  running.process().send_signal(SIGKILL);
  EXPECT_EQ(running.wait().outcome.signal, SIGKILL);
}

}  // namespace
}  // namespace martlet::test
