// Network cards under unmodified kernels. Runs on fresh-ground, which has br0 at 10.77.0.1.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>
#include <string>
#include <vector>

#include "tests/boot/virtio_guest.h"

namespace martlet::test {
namespace {

using ::testing::Contains;
using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// A silent standard input for listeners: at the end of one, nc tells its peer, which then ends too soon.
constexpr std::string_view kNetPrelude = R"sh(
up() {
  ip address add "$1/24" dev eth0
  ip link set eth0 up
  say mtu cat /sys/class/net/eth0/mtu
}
mkfifo /tmp/silence
exec 9<>/tmp/silence
reach() { ping -c 3 -W 5 -q "$@" | grep -o '[0-9]*% packet loss'; }
)sh";

constexpr std::string_view kTransfer = R"sh(
up 10.77.0.2
say pings reach 10.77.0.1
say big-pings reach -s 8972 10.77.0.1
awk '/^Ip:/ { if (n++) print "fragments", $17 + $18 + $19; }' /proc/net/snmp >/tmp/fragments
say fragments cat /tmp/fragments

# Both ways at once, from the last CPU: its packets go by the last queue.
last=$(($(nproc) - 1))
dd if=/dev/urandom of=/tmp/mine bs=1M count=16 2>/dev/null
taskset -c $last nc -l -p 1000 <&9 >/tmp/theirs &
listener=$!
echo "guest is ready"
taskset -c $last nc 10.77.0.1 1001 </tmp/mine >/dev/null || exit 2
wait $listener
say mine sha256sum </tmp/mine
say theirs sha256sum </tmp/theirs
say queues ls -1 /sys/class/net/eth0/queues
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
};
void PrintTo(const Case& a_case, std::ostream* stream) { *stream << a_case.name; }

class VirtioNet : public ::testing::TestWithParam<Case> {};

TEST_P(VirtioNet, CarriesTcpBothWays) {
  const auto& parameters = GetParam();
  const TempDir directory;
  const auto sent = directory.file("sent");
  const auto received = directory.file("received");
  output_of({"dd", "if=/dev/urandom", "of=" + sent, "bs=1M", "count=16", "status=none"});
  Subprocess listener{
      {.command = {"sh", "-c", "exec busybox nc -l -p 1001 >\"$0\"", received}, .input = Subprocess::Input::Pipe}};
  RunningGuest running{
      {.kernel = parameters.kernel,
       .cpus = parameters.queues,
       .more = {"--transport", parameters.transport, "-n",
                fmt::format("bridge=br0,mac=52:54:00:00:77:02,queues={}{}", parameters.queues, parameters.more)},
       .script = std::string{kVirtioPrelude}.append(kNetPrelude).append(kTransfer)}};
  ASSERT_TRUE(running.process().wait_for("guest is ready")) << running.wait();
  const auto sender = run(
      {.command = {"sh", "-c", "until busybox nc -w 30 10.77.0.2 1000 <\"$0\" >/dev/null; do sleep 0.1; done", sent}});
  EXPECT_EQ(sender.exit_code, 0) << sender;
  const Report report{running.wait()};
  EXPECT_EQ(listener.wait().exit_code, 0);

  expect_good(report);
  EXPECT_THAT(report.section("pings"), ElementsAre("0% packet loss"));
  EXPECT_THAT(report.section("big-pings"), ElementsAre("0% packet loss"));
  EXPECT_THAT(report.section("mtu"), ElementsAre(std::to_string(parameters.mtu)));
  if (parameters.mtu == 9000) {
    EXPECT_THAT(report.section("fragments"), ElementsAre("fragments 0"));
  }
  EXPECT_THAT(report.section("mine"), ElementsAre(sha256_of(received) + "  -"));
  EXPECT_THAT(report.section("theirs"), ElementsAre(sha256_of(sent) + "  -"));
  EXPECT_THAT(report.section("errors"), IsEmpty());
  EXPECT_EQ(report.section("queues").size(), 2 * parameters.queues);
  if (parameters.transport == "pci") {
    // Each of the last pair's has interrupted: the flow is steered to the CPU that serves it.
    for (const auto* direction : {"input", "output"}) {
      EXPECT_THAT(report.section("interrupts"),
                  Contains(ContainsRegex(fmt::format("PCI-MSI.* virtio0-{}\\.{}", direction, parameters.queues - 1))));
    }
  } else {
    EXPECT_THAT(report.section("interrupts"), Contains(ContainsRegex("IO-APIC.* virtio0")));
  }
}

INSTANTIATE_TEST_SUITE_P(Stock, VirtioNet,
                         ::testing::Values(Case{"Pci", "cloud-6.1", "pci", 1, ",vhost=off,mtu=1500"},
                                           Case{"Pci2QueuesMtu9000", "cloud-6.12", "pci", 2, ",vhost=off,mtu=9000",
                                                9000},
                                           Case{"Mmio", "full-6.1", "mmio", 1, ",vhost=off,mtu=1500"},
                                           Case{"PciAsItComes", "cloud-6.1", "pci", 1, "", 9000}),
                         [](const auto& a_case) { return a_case.param.name; });

/// Members of br0.
std::string members() { return output_of({"ip", "-oneline", "link", "show", "master", "br0"}); }

TEST(VirtioNetBridge, TwoGuestsReachEachOther) {
  const auto guest = [](int number, std::string_view script) {
    return Guest{.more = {"-n", "bridge=br0"},
                 .script = std::string{kVirtioPrelude}.append(kNetPrelude) +
                           fmt::format("up 10.77.0.{}\n", number).append(script)};
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

TEST(VirtioNetBridge, AKilledVmLeavesNoTap) {
  RunningGuest running{{.more = {"-n", "bridge=br0"},
                        .script = std::string{kVirtioPrelude}.append(kNetPrelude) + "up 10.77.0.2\n" +
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
