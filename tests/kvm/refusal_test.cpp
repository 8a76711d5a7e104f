// Disks, ports and networks that Martlet does not begin with: one line, exit code 125, and nothing left behind.

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <ostream>
#include <string>
#include <vector>

#include "tests/kvm/martlet.h"
#include "tests/kvm/network.h"

namespace martlet::test {
namespace {

struct Refusal {
  const char* name;
  const char* setup;  ///< for a shell in the directory where martlet starts
  std::vector<std::string> options;
  const char* says;  ///< part of the line
};
std::ostream& operator<<(std::ostream& stream, const Refusal& refusal) { return stream << refusal.name; }

std::string name_of(const testing::TestParamInfo<Refusal>& info) { return info.param.name; }

std::vector<std::string> command_with(const std::vector<std::string>& options) {
  auto command = martlet_command({.name = "exit", .append = "code=0", .options = options});
  if (::geteuid() == 0) {  // who may read what nobody may
    command.insert(command.begin(), {"setpriv", "--bounding-set", "-dac_override,-dac_read_search"});
  }
  return command;
}

void expect_refusal(const Outcome& ended, std::string_view says) {
  EXPECT_EQ(ended.exit_code, 125) << ended;
  EXPECT_EQ(ended.out, "") << ended;
  EXPECT_EQ(std::ranges::count(ended.err, '\n'), 1) << ended;
  EXPECT_NE(ended.err.find(says), std::string::npos) << ended << "expected: " << says;
}

/// What there is in a directory, and how large it is.
std::string listing(const TempDir& directory) {
  return run({.command = {"sh", "-c", "stat -c '%n %s' -- *"}, .directory = directory.path()}).out;
}

class BadPlace : public testing::TestWithParam<Refusal> {};

TEST_P(BadPlace, IsRefusedInOneLine) {
  const auto& refusal = GetParam();
  const TempDir directory;
  ASSERT_EQ(run({.command = {"sh", "-c", refusal.setup}, .directory = directory.path()}).exit_code, 0);
  const auto before = listing(directory);
  expect_refusal(run({.command = command_with(refusal.options), .directory = directory.path()}), refusal.says);
  EXPECT_EQ(listing(directory), before);
}

INSTANTIATE_TEST_SUITE_P(
    Disks, BadPlace,
    testing::Values(
        Refusal{"Missing", ":", {"-d", "disk"}, "disk: No such file"},
        Refusal{"Unreadable", "truncate -s 1M disk; chmod 0 disk", {"-d", "disk"}, "Permission denied"},
        Refusal{
            "UnreadableReadOnly", "truncate -s 1M disk; chmod 0 disk", {"-d", "disk,readonly=on"}, "Permission denied"},
        Refusal{"NotToBeWritten", "truncate -s 1M disk; chmod 400 disk", {"-d", "disk"}, "readonly=on"},
        Refusal{"ADirectory", "mkdir disk", {"-d", "disk"}, "is a directory"},
        Refusal{"Empty", ": >disk", {"-d", "disk"}, "is empty"},
        Refusal{"OddSized", "truncate -s 1000 disk", {"-d", "disk"}, "512-byte sectors"},
        Refusal{"Twice", "truncate -s 1M disk", {"-d", "disk", "-d", "disk"}, "this very command has it open"},
        Refusal{"NoOverlay", "truncate -s 1M disk", {"-d", "disk,overlay=missing/overlay"}, "missing/overlay"},
        Refusal{"OverlayOfAnotherDisk",
                "truncate -s 1M disk; truncate -s 2M large; : >empty",
                {"-d", "disk,overlay=new", "-d", "disk,overlay=empty", "-d", "large,overlay=new"},
                "this very command has it open"},
        Refusal{"OverlayAndNoNetwork",
                "truncate -s 1M disk; : >empty",
                {"-d", "disk,overlay=new", "-d", "disk,overlay=empty", "-n", "tap=nosuch"},
                "nosuch"},
        Refusal{"TwoWithOneSerial", "truncate -s 1M a b", {"-d", "a,serial=x", "-d", "b,serial=x"}, "serial"},
        Refusal{"UnknownWord", "truncate -s 1M disk", {"-d", "disk,colour=red"}, "colour"},
        Refusal{"Qcow2ByMistake", "truncate -s 1M disk", {"-d", "disk,format=qcow2"}, "magic"},
        Refusal{"Qcow2AndNoNetwork",  // whose last cluster is not there as a whole
                "qemu-img create -qf qcow2 disk 1M",
                {"-d", "disk,format=qcow2", "-n", "tap=nosuch"},
                "nosuch"},
        Refusal{
            "Qcow2OfAnotherVersion",
            "qemu-img create -qf qcow2 disk 1M && printf '\\000\\000\\000\\011' | dd of=disk bs=1 seek=4 conv=notrunc",
            {"-d", "disk,format=qcow2"},
            "version 9"},
        Refusal{"Qcow2CutShort",
                "qemu-img create -qf qcow2 disk 1M && truncate -s 60 disk",
                {"-d", "disk,format=qcow2"},
                "disk: "},
        Refusal{"Qcow2BackingFileNobodyNamed",
                "truncate -s 1M base && qemu-img create -qf qcow2 -F raw -b base disk",
                {"-d", "disk,format=qcow2"},
                "format=qcow2,backing=base,backing_format=raw"},
        Refusal{"Qcow2BackingFileMissing",
                "truncate -s 1M base && qemu-img create -qf qcow2 -F raw -b base disk && rm base",
                {"-d", "disk,format=qcow2,backing=base,backing_format=raw"},
                "base: No such file"},
        Refusal{"Qcow2WithoutBackingFile",
                "truncate -s 1M base && qemu-img create -qf qcow2 disk 1M",
                {"-d", "disk,format=qcow2,backing=base,backing_format=raw"},
                "has no backing file"}),
    name_of);

INSTANTIATE_TEST_SUITE_P(
    Ports, BadPlace,
    testing::Values(
        Refusal{"ConsoleAndPortOnStdio",
                ":",
                {"--serial", "null", "--console", "stdio", "--port", "name=log,stdio"},
                "by --console null"},
        Refusal{"SerialAndPortOnStdio", ":", {"--port", "name=log,stdio"}, "by --serial null"},
        Refusal{"TwoOnStdio", ":", {"--port", "name=a,stdio", "--port", "name=b,stdio"}, "stdio can lead to one port"},
        Refusal{"TwoOfOneName",
                "truncate -s 1M disk",
                {"--console", "file=log", "-d", "disk,overlay=new", "--port", "name=a,null", "--port", "name=a,pty"},
                "two named 'a'"},
        Refusal{"NoSuchDirectory",
                ":",
                {"--console", "socket=hvc", "--port", "name=a,socket=a", "--port", "name=b,file=missing/b"},
                "missing/b: No such file"}),
    name_of);

TEST(BadDiskInUse, NamesWhoHoldsIt) {
  const TempDir directory;
  const auto disk = directory.file("disk");
  ASSERT_EQ(run({.command = {"truncate", "-s", "1M", disk}}).exit_code, 0);
  Subprocess holder{{.command = martlet_command({.name = "halt", .append = "until=never", .options = {"-d", disk}})}};
  ASSERT_TRUE(holder.wait_for("asleep\n")) << holder.wait();
  expect_refusal(run({.command = command_with({"-d", disk})}), "process " + std::to_string(holder.pid()));
}

class BadNetwork : public testing::TestWithParam<Refusal> {
 protected:
  void SetUp() override {
    if (const auto why = no_network(); !why.empty()) {
      GTEST_SKIP() << why;
    }
  }
};

TEST_P(BadNetwork, IsRefusedInOneLine) {
  const auto& refusal = GetParam();
  const auto martlet = martlet_command({.name = "exit", .append = "code=0", .options = refusal.options});
  expect_refusal(run({.command = in_network(refusal.setup, martlet)}), refusal.says);
}

constexpr const char* kNoPasst =
    "mount -t tmpfs none /mnt; ln -s $(command -v ls) /mnt; ln -s $(command -v sh) /mnt; PATH=/mnt";

// Back-ends that listen at /mnt/socket and are no good.
constexpr const char* kListens =
    "mount -t tmpfs none /mnt; back_end() { python3 -c \"import socket; it = socket.socket(socket.AF_UNIX); "
    "it.bind('/mnt/socket'); it.listen(); open('/mnt/ready', 'w'); it = it.accept()[0]; $1\" >/dev/null 2>&1 & "
    "until [ -e /mnt/ready ]; do sleep 0.1; done; }; back_end ";
const std::string kHangsUp = std::string{kListens} + "'it.recv(12)'";
const std::string kHasNothing =
    std::string{kListens} + "'it.recv(12); it.send(bytes([1, 0, 0, 0, 5, 0, 0, 0, 8] + [0] * 11)); it.recv(12)'";

constexpr const char* kNoTun = "ip link add br0 type bridge; mount -t tmpfs none /dev/net";

INSTANTIATE_TEST_SUITE_P(
    All, BadNetwork,
    testing::Values(
        Refusal{"NoTun", kNoTun, {"-n", "bridge=br0"}, "/dev/net/tun: this host has no TAPs"},
        Refusal{"NoBridge", ":", {"-n", "bridge=br0"}, "br0: there is no such interface"},
        Refusal{"BridgeIsATap", kTap, {"-n", "bridge=tap0"}, "tap0: is a TAP or TUN, not a bridge"},
        Refusal{"NoTap", ":", {"-n", "tap=tap0"}, "tap0: there is no such interface"},
        Refusal{"TapIsABridge", kBridge, {"-n", "tap=br0"}, "br0: is of kind bridge, not a TAP"},
        Refusal{"TapBusy", kTap, {"-n", "tap=tap0", "-n", "tap=tap0"}, "tap0: is busy"},
        Refusal{
            "SecondOneMissing", kBridge, {"-n", "bridge=br0", "-n", "bridge=br1"}, "br1: there is no such interface"},
        Refusal{"MtuTooLarge", kBridge, {"-n", "bridge=br0,mtu=9000"}, "mtu=9000"},
        Refusal{"NoPasst", kNoPasst, {"-n", "user"}, "apt-get install passt"},
        Refusal{"NoBackEnd", ":", {"-n", "vhost-user=/nowhere"}, "vhost-user=/nowhere: cannot connect"},
        Refusal{"BackEndIsNoSocket", ":", {"-n", "vhost-user=/dev/null"}, "/dev/null: cannot connect"},
        Refusal{
            "BackEndHangsUp", kHangsUp.c_str(), {"-n", "vhost-user=/mnt/socket"}, "no sensible answer to GET_FEATURES"},
        Refusal{"BackEndIsTooOld", kHasNothing.c_str(), {"-n", "vhost-user=/mnt/socket"}, "does not offer virtio 1.0"},
        Refusal{"NoDescriptor", ":", {"-n", "fd=99"}, "fd=99: is not an open descriptor"},
        Refusal{"MacMalformed", kBridge, {"-n", "bridge=br0,mac=52:54:00:12:34"}, "mac=52:54:00:12:34: "},
        Refusal{"MacMulticast", kBridge, {"-n", "bridge=br0,mac=53:54:00:12:34:56"}, "multicast"}),
    name_of);

}  // namespace
}  // namespace martlet::test
