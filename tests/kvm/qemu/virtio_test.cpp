// The virtio driver guests against QEMU's devices: what the guests do and expect is what the specification
// says. Each runs over PCI (q35) and MMIO (microvm), on both rings, told of used buffers in every way.

#include <gtest/gtest.h>

#include <ostream>

#include "tests/kvm/qemu/qemu.h"
#include "tests/support/line.h"
#include "tests/support/sectors.h"

namespace martlet::test {
namespace {

struct Way {
  const char* name;
  bool mmio;
  const char* words;
};
std::ostream& operator<<(std::ostream& stream, const Way& way) { return stream << way.words; }

constexpr Way kWays[] = {
    {"PciSplitPolled", false, "config=ports"},
    {"PciSplitMsix", false, "irq=msix indirect=on event=on"},
    {"PciSplitWire", false, "irq=wire"},
    {"PciPackedPolled", false, "ring=packed indirect=on"},
    {"PciPackedMsix", false, "ring=packed irq=msix event=on"},
    {"PciPackedMsixIndirect", false, "ring=packed irq=msix event=on indirect=on"},
    {"MmioSplitPolled", true, "event=on"},
    {"MmioSplitWire", true, "irq=wire indirect=on event=on"},
    {"MmioPackedWire", true, "ring=packed irq=wire"},
};

/// `device` without its bus: virtio-rng, not virtio-rng-pci. QEMU 7.2 offers VIRTIO_F_RING_RESET over MMIO
/// too, but has no register for it there.
std::vector<std::string> device_options(const Way& way, const std::string& device, const std::string& properties = {}) {
  const auto on_bus = way.mmio ? "-device,queue_reset=off" : "-pci,disable-legacy=on";
  return {"-global", "virtio-mmio.force-legacy=false", "-device", device + on_bus + ",packed=on" + properties};
}

QemuGuest guest_on(const Way& way, std::string_view name, const std::string& words) {
  return {.name = name,
          .append = std::string{way.words} + (way.mmio ? " transport=mmio " : " ") + words,
          .machine = way.mmio ? "microvm,acpi=off" : "q35"};  // without ACPI it announces devices as words
}

/// All is well, and it said so on the last line, which begins with this.
void expect_report(const Outcome& guest, std::string_view name) {
  EXPECT_EQ(guest.exit_code, debug_exit(0)) << guest;
  EXPECT_EQ(guest.out.find("FAILED"), std::string::npos) << guest;
  EXPECT_NE(guest.out.find(std::string{name} + ": requests "), std::string::npos) << guest;
}

class Virtio : public testing::TestWithParam<Way> {};

TEST_P(Virtio, Rng) {
  auto guest = guest_on(GetParam(), "virtio_rng", "");
  guest.options = device_options(GetParam(), "virtio-rng");
  expect_report(run_qemu(guest), "rng");
}

TEST_P(Virtio, Block) {
  const TempDir directory;
  const auto disk = directory.file("disk.img");
  write_disk(disk, 128);
  auto guest = guest_on(GetParam(), "virtio_blk", "serial=martlet-7 sectors=128 size=64");
  guest.options = device_options(GetParam(), "virtio-blk", ",drive=disk,serial=martlet-7,num-queues=2");
  guest.options.insert(guest.options.end(),
                       {"-drive", "if=none,id=disk,format=raw,discard=unmap,file=" + disk, "-smp", "2"});
  expect_report(run_qemu(guest), "blk");
  EXPECT_TRUE(holds_what_was_written(read_file(disk)));
}

TEST_P(Virtio, BlockReadOnly) {
  const TempDir directory;
  const auto disk = directory.file("disk.img");
  write_disk(disk, 64);
  const auto before = read_file(disk);
  auto guest = guest_on(GetParam(), "virtio_blk", "readonly=1 sectors=64");
  guest.options = device_options(GetParam(), "virtio-blk", ",drive=disk");
  guest.options.insert(guest.options.end(), {"-drive", "if=none,id=disk,format=raw,readonly=on,file=" + disk});
  expect_report(run_qemu(guest), "blk");
  EXPECT_TRUE(read_file(disk) == before);
}

TEST_P(Virtio, Net) {
  for (const char* words : {"mac=02:4d:61:72:74:6c", "mac=02:4d:61:72:74:6c buffer=256"}) {
    auto guest = guest_on(GetParam(), "virtio_net", words);
    guest.options = device_options(GetParam(), "virtio-net", ",netdev=peer,mac=02:4d:61:72:74:6c");
    guest.options.insert(guest.options.end(), {"-netdev", "user,id=peer"});  // answers as 10.0.2.2
    expect_report(run_qemu(guest), "net");
  }
}

/// It says `greeting`, then what is said to it: over the device that QEMU calls `device`.
void talk_to(QemuGuest guest, const std::string& device, std::string_view greeting) {
  const TempDir directory;
  const auto socket = directory.file("socket");
  guest.options.insert(guest.options.end(), {"-chardev", "socket,id=line,server=on,wait=on,path=" + socket, "-device",
                                             device + ",chardev=line", "-serial", "stdio", "-monitor", "none"});
  Subprocess qemu{{.command = qemu_command(guest)}};
  Line user{connect_to(socket)};
  ASSERT_TRUE(qemu.wait_for("ready\n")) << qemu.wait();
  EXPECT_TRUE(user.wait_for(greeting)) << qemu.wait();
  const auto text = typed(5000);
  user.type(text + "the end");
  EXPECT_TRUE(user.wait_for(text + "the end")) << user.seen();
  user.type("\4");
  expect_report(qemu.wait(), "console");
}

TEST_P(Virtio, Console) {
  auto guest = guest_on(GetParam(), "virtio_console", "");
  guest.options = device_options(GetParam(), "virtio-serial", ",max_ports=1");
  talk_to(std::move(guest), "virtconsole", "this is the console\n");
}

TEST_P(Virtio, NamedPort) {
  auto guest = guest_on(GetParam(), "virtio_console", "port=agent");
  guest.options = device_options(GetParam(), "virtio-serial", ",max_ports=4");
  talk_to(std::move(guest), "virtserialport,name=agent", "this is a port\n");
}

INSTANTIATE_TEST_SUITE_P(Every, Virtio, testing::ValuesIn(kWays),
                         [](const auto& instance) { return std::string{instance.param.name}; });

class VirtioProbe : public testing::TestWithParam<Way> {};

TEST_P(VirtioProbe, FindsAllDevicesAsTheyShouldBe) {
  const TempDir directory;
  const auto disk = directory.file("disk.img");
  write_disk(disk, 64);
  auto guest = guest_on(GetParam(), "virtio_probe", "expect=4");
  for (const auto& [device, properties] : {std::pair{"virtio-rng", ""},
                                           {"virtio-serial", ",max_ports=2"},
                                           {"virtio-blk", ",drive=disk"},
                                           {"virtio-net", ",netdev=peer"}}) {
    const auto options = device_options(GetParam(), device, properties);
    guest.options.insert(guest.options.end(), options.begin(), options.end());
  }
  guest.options.insert(guest.options.end(),
                       {"-drive", "if=none,id=disk,format=raw,file=" + disk, "-netdev", "user,id=peer"});
  expect_satisfied(run_qemu(guest), "virtio devices 4\n");
}

INSTANTIATE_TEST_SUITE_P(By, VirtioProbe,
                         testing::Values(Way{"Ecam", false, "config=ecam"}, Way{"Ports", false, "config=ports"},
                                         Way{"Mmio", true, ""}),
                         [](const auto& instance) { return std::string{instance.param.name}; });

}  // namespace
}  // namespace martlet::test
