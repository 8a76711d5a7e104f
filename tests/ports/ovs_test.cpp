// A guest on a port of a real Open vSwitch, of the kernel's datapath and of its own: it reaches its VLAN, and no other.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "tests/support/namespace.h"
#include "tests/support/subprocess.h"

namespace martlet {
namespace {

using testing::HasSubstr;

/// Where Open vSwitch's programs meet: a fresh database.
class OvsFolder {
 public:
  OvsFolder() {
    std::filesystem::create_directory(path);
    for (const auto* name : {"OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "OVS_SYSCONFDIR"}) {
      ::setenv(name, path.c_str(), 1);  // NOLINT: one thread, in a process of this test's own
    }
    test::run_shell("ovsdb-tool create " + path +
                    "/conf.db ${OVS_PKGDATADIR:-/usr/share/openvswitch}/vswitch.ovsschema");
  }
  OvsFolder(const OvsFolder&) = delete;
  OvsFolder& operator=(const OvsFolder&) = delete;
  ~OvsFolder() { std::filesystem::remove_all(path); }

  const std::string path = testing::TempDir() + "ovs-" + std::to_string(::getpid());
};

test::Subprocess::Config server(std::vector<std::string> command) {
  return {
      .command = std::move(command), .output = test::Subprocess::Output::Null, .deadline = std::chrono::seconds{280}};
}

test::Outcome guest_on(const std::string& network) {
  return test::run({.command = {MARTLET_PROGRAM, "run", GUEST_DIR "/virtio_net.elf", "--append", "irq=msix", "-m",
                                "64M", "-n", network},
                    .deadline = std::chrono::seconds{250}});
}

class OvsPort : public testing::TestWithParam<const char*> {};

TEST_P(OvsPort, ReachesItsVlanAndNoOther) {
  const std::string datapath = GetParam();
  if (::access("/dev/kvm", R_OK | W_OK) != 0) {
    GTEST_SKIP() << "no /dev/kvm here";
  }
  if (!test::shell_says("PATH=$PATH:/usr/sbin command -v ovs-vswitchd >/dev/null")) {
    GTEST_SKIP() << "needs Open vSwitch: apt install openvswitch-switch, or tests/ports/with-ovs";
  }
  if (datapath == "system" && !test::shell_says("PATH=$PATH:/usr/sbin modprobe openvswitch 2>/dev/null")) {
    GTEST_SKIP() << "this kernel has no openvswitch module";
  }
  test::in_namespace([&] {
    ::setenv("PATH", (std::string{::getenv("PATH")} + ":/usr/sbin:/sbin").c_str(), 1);  // NOLINT: one thread
    const OvsFolder folder;
    const auto meet = "unix:" + folder.path + "/db.sock";
    test::Subprocess database{server({"ovsdb-server", folder.path + "/conf.db", "--remote=p" + meet})};
    ASSERT_TRUE(database.wait_until([&] { return test::shell_says("ovs-vsctl -t 5 --no-wait init 2>/dev/null"); }));
    const test::Subprocess vswitchd{server({"ovs-vswitchd", meet, "--pidfile"})};
    // Else the host, which hears a TAP beside Open vSwitch's own datapath, would answer for its address elsewhere.
    test::run_shell("echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore");
    test::run_shell("ip link set lo up; ovs-vsctl -t 60 add-br ovsbr0 -- set bridge ovsbr0 datapath_type=" + datapath +
                    " && ovs-vsctl -t 60 add-port ovsbr0 peer tag=10 -- set interface peer type=internal"
                    " && ip addr add 10.0.2.2/24 dev peer && ip link set peer up");
    for (const auto* tag : {"10", "20"}) {
      test::run_shell(
          fmt::format("ip tuntap add tap{0} mode tap && ip link set tap{0} up && "
                      "ovs-vsctl -t 60 add-port ovsbr0 tap{0} tag={0}",
                      tag));
    }
    const auto same = guest_on("tap=tap10");
    EXPECT_EQ(same.exit_code, 0) << same;
    EXPECT_THAT(same.out, HasSubstr("net echoes 12"));
    const auto other = guest_on("tap=tap20");
    EXPECT_EQ(other.exit_code, 1) << other;
    EXPECT_THAT(other.out, HasSubstr("FAILED: the peer answers ARP"));

    const auto refused = guest_on("bridge=ovsbr0");
    EXPECT_EQ(refused.exit_code, 125) << refused;
    EXPECT_THAT(refused.err, HasSubstr("ovs-vsctl add-port ovsbr0 tap0; then -n tap=tap0"));
    EXPECT_EQ(refused.err.find('\n'), refused.err.size() - 1);
    test::run_shell("ovs-vsctl -t 60 del-br ovsbr0");
  });
}

INSTANTIATE_TEST_SUITE_P(Datapath, OvsPort, testing::Values("system", "netdev"),
                         [](const auto& tested) { return std::string{tested.param}; });

}  // namespace
}  // namespace martlet
