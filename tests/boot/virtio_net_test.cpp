// Network cards under unmodified kernels. Runs on fresh-ground, which has br0 at 10.77.0.1.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "tests/boot/virtio_guest.h"

namespace martlet::test {
namespace {

using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::string_view kTransfer = R"sh(
up 10.77.0.2
last=$(($(nproc) - 1))
for cpu in $(seq 0 $last); do
  say pings-$cpu reach 10.77.0.1
done
say big-pings reach -s 8972 10.77.0.1
awk '/^Ip:/ { if (n++) print "fragments", $17 + $18 + $19; }' /proc/net/snmp >/tmp/fragments
say fragments cat /tmp/fragments

# Both ways at once, from the last CPU: its packets go by the last queue.
dd if=/dev/urandom of=/tmp/mine bs=1M count=16 2>/dev/null
taskset -c $last nc -l -p 1000 <&9 >/tmp/theirs &
listener=$!
echo "guest is ready"
taskset -c $last nc 10.77.0.1 1001 </tmp/mine >/dev/null || exit 2
wait $listener
say mine sha256sum </tmp/mine
say theirs sha256sum </tmp/theirs
say queues ls -1 /sys/class/net/eth0/queues
features() {
  for device in /sys/bus/virtio/drivers/virtio_net/virtio*; do
    cat $device/features
  done
}
say features features
say errors sh -c 'grep . /sys/class/net/eth0/statistics/*_errors | grep -v :0'
kernel_says
)sh";

struct Case {
  std::string name;
  std::string kernel;
  std::string transport;
  unsigned queues = 1;
  std::string more{};  // of -n
  unsigned mtu = 1500;
  bool vhost = false;
};
void PrintTo(const Case& a_case, std::ostream* stream) { *stream << a_case.name; }

/// How often `process` has `path` open.
unsigned open_files(const Subprocess& process, const std::string& path) {
  unsigned count = 0;
  for (const auto& fd : std::filesystem::directory_iterator{fmt::format("/proc/{}/fd", process.pid())}) {
    std::error_code gone;
    count += std::filesystem::read_symlink(fd, gone) == path ? 1 : 0;
  }
  return count;
}

class VirtioNet : public ::testing::TestWithParam<Case> {};

TEST_P(VirtioNet, CarriesTcpBothWays) {
  const auto& parameters = GetParam();
  const TempDir directory;
  const auto sent = directory.file("sent");
  const auto received = directory.file("received");
  output_of({"dd", "if=/dev/urandom", "of=" + sent, "bs=1M", "count=16", "status=none"});
  // All who share a link agree on its MTU: a bridge drops what is longer than the port's.
  output_of({"ip", "link", "set", "br0", "mtu", std::to_string(parameters.mtu)});
  Subprocess listener{
      {.command = {"sh", "-c", "exec busybox nc -l -p 1001 >\"$0\"", received}, .input = Subprocess::Input::Pipe}};
  RunningGuest running{
      {.kernel = parameters.kernel,
       .cpus = parameters.queues,
       .more = {"--transport", parameters.transport, "-n",
                fmt::format("bridge=br0,mac=52:54:00:00:77:02,queues={}{}", parameters.queues, parameters.more)},
       .script = std::string{kVirtioPrelude}.append(kTransfer),
       .limit = std::chrono::seconds{400}}};
  ASSERT_TRUE(running.process().wait_for("guest is ready")) << running.wait();
  const auto kernel_carries = open_files(running.process(), "/dev/vhost-net");
  // The lab has it; another machine may.
  const bool has_vhost = std::getenv("MARTLET_LAB") != nullptr || std::filesystem::exists("/dev/vhost-net");
  EXPECT_EQ(kernel_carries, parameters.vhost && has_vhost ? parameters.queues : 0);
  const auto sender = run(
      {.command = {"sh", "-c", "until busybox nc -w 30 10.77.0.2 1000 <\"$0\" >/dev/null; do sleep 0.1; done", sent}});
  EXPECT_EQ(sender.exit_code, 0) << sender;
  const Report report{running.wait()};
  EXPECT_EQ(listener.wait().exit_code, 0);

  expect_good(report);
  EXPECT_THAT(report.section("big-pings"), ElementsAre("0% packet loss"));
  EXPECT_THAT(report.section("mtu"), ElementsAre(std::to_string(parameters.mtu)));
  if (parameters.mtu == 9000) {
    EXPECT_THAT(report.section("fragments"), ElementsAre("fragments 0"));
  }
  EXPECT_THAT(report.section("mine"), ElementsAre(sha256_of(received) + "  -"));
  EXPECT_THAT(report.section("theirs"), ElementsAre(sha256_of(sent) + "  -"));
  EXPECT_THAT(report.section("errors"), IsEmpty());
  EXPECT_EQ(report.section("queues").size(), 2 * parameters.queues);
  EXPECT_THAT(report.section("rings"), Contains(kernel_carries != 0 ? "virtio_net split" : "virtio_net packed"));
  // CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, MRG_RXBUF
  ASSERT_EQ(report.section("features").size(), 1U);
  for (const std::size_t bit : {0U, 1U, 7U, 11U, 15U}) {
    EXPECT_EQ(report.section("features")[0].at(bit), '1') << "feature bit " << bit;
  }
  for (unsigned pair = 0; pair < parameters.queues; ++pair) {
    EXPECT_THAT(report.section(fmt::format("pings-{}", pair)), ElementsAre("0% packet loss"));
    if (parameters.transport == "pci") {  // what a CPU sends goes by its own pair, and so do the answers
      EXPECT_GE(interrupts(report, fmt::format("PCI-MSI.* virtio0-input\\.{}$", pair)), 3U);
      EXPECT_GE(interrupts(report, fmt::format("PCI-MSI.* virtio0-output\\.{}$", pair)), 1U);
    }
  }
  // Tens of thousands of packets, of which none costs an exit; over MMIO an interrupt costs two, to look and to answer.
  std::uint64_t most_exits = 400;
  if (parameters.transport == "mmio") {
    const auto wire = interrupts(report, "IO-APIC.* virtio0$");
    EXPECT_GE(wire, 3U);
    most_exits += 2 * wire;
  }
  const auto& statistics = report.ended().outcome.err;
  const auto exits = exits_of(statistics, parameters.transport == "pci" ? "pci bars" : "virtio-mmio 0");
  ASSERT_TRUE(exits) << statistics;
  EXPECT_LT(*exits, most_exits) << statistics;
}

INSTANTIATE_TEST_SUITE_P(Stock, VirtioNet,
                         ::testing::Values(Case{"Pci", "cloud-6.1", "pci", 1, ",vhost=off,mtu=1500"},
                                           Case{"Pci2QueuesMtu9000", "cloud-6.12", "pci", 2, ",vhost=off,mtu=9000",
                                                9000},
                                           Case{"Mmio", "full-6.1", "mmio", 1, ",vhost=off,mtu=1500"},
                                           Case{"PciAsItComes", "cloud-6.1", "pci", 1, "", 9000, true}),
                         [](const auto& a_case) { return a_case.param.name; });

/// Members of br0.
std::string members() { return output_of({"ip", "-oneline", "link", "show", "master", "br0"}); }

TEST(VirtioNetBridge, TwoGuestsReachEachOther) {
  const auto guest = [](int number, std::string_view script) {
    return Guest{.more = {"-n", "bridge=br0"},
                 .script = std::string{kVirtioPrelude} + fmt::format("up 10.77.0.{}\n", number).append(script)};
  };
  RunningGuest first{guest(2, R"sh(
    nc -l -p 1000 <&9 >/tmp/theirs &
    echo "guest is ready"
    wait
    say theirs sha256sum </tmp/theirs
    kernel_says
  )sh")};
  ASSERT_TRUE(first.process().wait_for("guest is ready")) << first.wait();
  const Report second{boot(guest(3, R"sh(
    say host reach 10.77.0.1
    say neighbour reach 10.77.0.2
    dd if=/dev/urandom of=/tmp/mine bs=1M count=4 2>/dev/null
    until nc 10.77.0.2 1000 </tmp/mine >/dev/null; do sleep 0.1; done
    say mine sha256sum </tmp/mine
    kernel_says
  )sh"))};
  const Report report{first.wait()};
  expect_good(report);
  expect_good(second);
  EXPECT_THAT(second.section("host"), ElementsAre("0% packet loss"));
  EXPECT_THAT(second.section("neighbour"), ElementsAre("0% packet loss"));
  EXPECT_EQ(second.section("mine"), report.section("theirs"));
  EXPECT_THAT(members(), IsEmpty());
}

// A TAP that is set down is a cable pulled out, whoever carries the frames.
TEST(VirtioNetBridge, TheLinkFollowsTheTaps) {
  for (const auto* vhost : {"auto", "off"}) {
    RunningGuest running{
        {.more = {"-n", fmt::format("bridge=br0,vhost={}", vhost)}, .script = std::string{kVirtioPrelude}.append(R"sh(
      up 10.77.0.2
      link() { await grep -qx $1 /sys/class/net/eth0/operstate; }
      say before reach 10.77.0.1
      link up
      echo "it is up"
      link down
      say state cat /sys/class/net/eth0/operstate
      echo "it is down"
      link up
      say after reach 10.77.0.1
      kernel_says
    )sh")}};
    auto& process = running.process();
    ASSERT_TRUE(process.wait_for("it is up")) << running.wait();
    const auto line = members();
    const auto name = line.find(' ') + 1;  // "7: mlt0: <…"
    const auto tap = line.substr(name, line.find(':', name) - name);
    output_of({"ip", "link", "set", tap, "down"});
    ASSERT_TRUE(process.wait_for("it is down")) << running.wait();
    output_of({"ip", "link", "set", tap, "up"});
    const Report report{running.wait()};
    expect_good(report);
    EXPECT_THAT(report.section("before"), ElementsAre("0% packet loss"));
    EXPECT_THAT(report.section("state"), ElementsAre("down"));
    EXPECT_THAT(report.section("after"), ElementsAre("0% packet loss"));
  }
}

TEST(VirtioNetBridge, AKilledVmLeavesNoTap) {
  RunningGuest running{{.more = {"-n", "bridge=br0"},
                        .script = std::string{kVirtioPrelude} + "up 10.77.0.2\n" +
                                  "reach 10.77.0.1\necho guest is ready\nsleep 1000\n"}};
  ASSERT_TRUE(running.process().wait_for("guest is ready")) << running.wait();
  EXPECT_THAT(running.process().out(), HasSubstr("0% packet loss"));
  EXPECT_THAT(members(), HasSubstr("LOWER_UP"));
  running.process().send_signal(SIGKILL);
  EXPECT_EQ(running.wait().outcome.signal, SIGKILL);
  EXPECT_THAT(members(), IsEmpty());
}

}  // namespace
}  // namespace martlet::test
