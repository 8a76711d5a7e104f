#include <asm/bootparam.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <libfdt.h>

#include "boot/fdt.h"
#include "tests/unit/boot_support.h"

namespace martlet {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;

constexpr GuestAddr kFloor{2 * kMiB};
constexpr GuestAddr kCeiling{16 * kMiB};

const std::vector<GuestRange> kRam = ram_ranges(5 * kGiB);
const FdtConfig kConfig{.cpus = 2,
                        .ram = kRam,
                        .command_line = "console=ttyS0 \"quoted\"",
                        .initrd = GuestRange{GuestAddr{0x7000000}, 0x1234}};

/// What dtc reads out of `blob`; it must have nothing to say about it.
std::string decompile(const Bytes& blob) {
  const FileDir dir;
  const auto dts = run("dtc -I dtb -O dts -o " + dir / "out.dts" + " " + dir.write("in.dtb", blob));
  EXPECT_EQ(dts.status, 0) << dts.output << "(install device-tree-compiler)";
  EXPECT_EQ(dts.output, "");
  return read_file(dir / "out.dts");
}

TEST(BootFdt, DtcReadsItWithoutAWarning) {
  const auto source = decompile(make_fdt(kConfig));
  for (const auto* part :
       {"bootargs = \"console=ttyS0 \\\"quoted\\\"\";", "linux,initrd-start = <0x00 0x7000000>;",
        "linux,initrd-end = <0x00 0x7001234>;", "stdout-path = \"/isa@70/serial@3f8\";", "memory@0 {",
        "reg = <0x00 0x00 0x00 0xc0000000>;", "memory@100000000 {", "reg = <0x01 0x00 0x00 0x80000000>;", "cpu@1 {",
        "compatible = \"ns16550a\";", "reg = <0x01 0x3f8 0x08>;", "interrupts = <0x04 0x00>;", "intel,ce4100-ioapic",
        "intel,ce4100-lapic"}) {
    EXPECT_THAT(source, HasSubstr(part));
  }
}

TEST(BootFdt, GrowsWithItsMachine) {
  const FdtConfig config{.cpus = 4096,
                         .ram = kRam,
                         .command_line = std::string(60000, 'x'),
                         .virtio_mmio = layout::kVirtioMmioIrqs.size()};
  const auto source = decompile(make_fdt(config));
  EXPECT_THAT(source, HasSubstr("cpu@fff {"));
  EXPECT_THAT(source, HasSubstr("virtio@feb0f000 {"));
  EXPECT_THAT(source, HasSubstr("compatible = \"virtio,mmio\";"));
  EXPECT_THAT(source, HasSubstr("interrupts = <0x17 0x00>;"));
  EXPECT_EQ(source.find("initrd"), source.npos);
}

TEST(BootFdt, IsPlacedAsSetupData) {
  const auto guest = make_guest(16 * kMiB);
  const auto blob = make_fdt(kConfig);
  const auto range = place_fdt(guest, blob, kFloor, kCeiling);
  EXPECT_EQ(range.size, blob.size() + 16);
  EXPECT_LE(range.end(), raw(kCeiling));
  EXPECT_EQ(guest.read<std::uint64_t>(range.start), 0U);  // no further record
  EXPECT_EQ(guest.read<std::uint32_t>(range.start + 8), std::uint32_t{SETUP_DTB});
  EXPECT_EQ(guest.read<std::uint32_t>(range.start + 12), blob.size());
  EXPECT_TRUE(std::ranges::equal(guest.slice(range.start + 16, blob.size()).value(), blob));
}

TEST(BootFdt, NoRoom) {
  const auto guest = make_guest(16 * kMiB);
  EXPECT_THAT(error_of([&] { static_cast<void>(place_fdt(guest, Bytes(5000), kFloor, GuestAddr{2 * kMiB + 4096})); }),
              HasSubstr("no room in RAM for a device tree of 5 KiB: use a larger -m"));
}

class BootFdtFile : public testing::Test {
 protected:
  GuestRange load(const std::string& path) { return load_fdt(guest_, path, kFloor, kCeiling); }
  std::string refusal(const std::string& path) {
    return error_of([&] { load(path); });
  }
  GuestMemory guest_ = make_guest(16 * kMiB);
  FileDir dir_;
};

TEST_F(BootFdtFile, IsLoadedAsItIs) {
  const auto blob = make_fdt(kConfig);
  const auto range = load(dir_.write("a.dtb", blob));
  EXPECT_TRUE(std::ranges::equal(guest_.slice(range.start + 16, blob.size()).value(), blob));
}

TEST_F(BootFdtFile, WhatIsNoDeviceTree) {
  EXPECT_THAT(refusal(dir_ / "absent"), HasSubstr("cannot open"));
  EXPECT_THAT(refusal(dir_.path()), HasSubstr("is a directory; expected a device tree blob (.dtb)"));
  EXPECT_THAT(refusal(dir_.write("empty", "")), HasSubstr("is empty"));
  EXPECT_THAT(refusal(dir_.write("text.dts", "/dts-v1/; / {};")),
              AllOf(HasSubstr("text.dts is not a valid device tree blob (FDT_ERR_"), HasSubstr("dtc -O dtb")));
  std::filesystem::resize_file(dir_.write("huge.dtb", "x"), 17 * kMiB);
  EXPECT_THAT(refusal(dir_ / "huge.dtb"), HasSubstr("has 17 MiB; a device tree blob has at most 16"));
}

TEST_F(BootFdtFile, AncientVersionsAreRefused) {  // libfdt 1.6.1 follows a null pointer in them
  auto blob = make_fdt(kConfig);
  poke(blob, offsetof(fdt_header, version), cpu_to_fdt32(3));
  poke(blob, offsetof(fdt_header, last_comp_version), cpu_to_fdt32(2));
  EXPECT_THAT(refusal(dir_.write("old.dtb", blob)), HasSubstr("FDT_ERR_BADVERSION"));
}

TEST_F(BootFdtFile, CutShortAnywhere) {
  const auto blob = make_fdt(kConfig);
  for (std::size_t size = 1; size < blob.size(); size += 13) {
    EXPECT_THAT(refusal(dir_.write("cut.dtb", std::span{blob}.first(size))),
                HasSubstr("is not a valid device tree blob"))
        << size;
  }
}

}  // namespace
}  // namespace martlet
