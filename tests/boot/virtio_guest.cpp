#include "tests/boot/virtio_guest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <utility>

namespace martlet::test {

const std::string_view kVirtioPrelude = R"sh(
modprobe -a virtio_pci virtio_mmio virtio_blk virtio_net virtio_console virtio_rng ext4
disk() {
  for device in /sys/block/vd*; do
    [ "$(cat $device/serial)" != "$1" ] || echo /dev/${device##*/}
  done
}
say() {
  echo "BEGIN $1"
  name=$1
  shift
  "$@"
  echo "END $name"
}
kernel_says() {
  say interrupts cat /proc/interrupts
  say dmesg dmesg -r
}
tool() {
  [ -d /tools ] || { mkdir /tools && mount -t ext4 -o ro "$(disk tools)" /tools; }
  /tools/run "$@"
}
)sh";

std::string tools_disk() { return "path=" MARTLET_GUESTS "/tools.ext4,readonly=on,serial=tools"; }

void expect_good(const Report& report) {
  const auto& ended = report.ended();
  EXPECT_EQ(ended.verdict["verdict"], "guest-exit") << ended;
  EXPECT_EQ(ended.outcome.exit_code, 0) << ended;
  EXPECT_FALSE(report.section("dmesg").empty());
  EXPECT_THAT(report.unexplained_complaints(), ::testing::IsEmpty());
}

void make_file(const std::string& path, std::uint64_t bytes) {
  std::ofstream{path};
  std::filesystem::resize_file(path, bytes);
}

void write_file(const std::string& path, std::string_view content) { std::ofstream{path, std::ios::binary} << content; }

std::string output_of(std::vector<std::string> command) {
  auto outcome = run({.command = std::move(command)});
  EXPECT_EQ(outcome.exit_code, 0) << outcome;
  return std::move(outcome.out);
}

std::string sha256_of(const std::string& path) { return output_of({"sha256sum", "--", path}).substr(0, 64); }

}  // namespace martlet::test
