#include "tests/boot/virtio_guest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
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
rings() {
  for device in /sys/bus/virtio/devices/*; do
    packed=$(cut -c 35 $device/features)
    echo "$(basename "$(readlink $device/driver)") $([ $packed = 1 ] && echo packed || echo split)"
  done
}
kernel_says() {
  say interrupts cat /proc/interrupts
  say rings rings
  say dmesg dmesg -r
}
tool() {
  [ -d /tools ] || { mkdir /tools && mount -t ext4 -o ro "$(disk tools)" /tools; }
  /tools/run "$@"
}
await() { until "$@" 2>/dev/null; do sleep 0.1; done; }
port() {
  until name=$(grep -lx "$1" /sys/class/virtio-ports/*/name 2>/dev/null); do sleep 0.1; done
  basename ${name%/name}
}
up() {
  ip address add "$1/24" dev eth0
  ip link set eth0 up
  say mtu cat /sys/class/net/eth0/mtu
}
reach() { taskset -c ${cpu:-0} ping -c 3 -W 5 -q "$@" | grep -o '[0-9]*% packet loss'; }
# A silent standard input for listeners: at the end of one, nc tells its peer, which then ends too soon.
mkfifo /tmp/silence
exec 9<>/tmp/silence
)sh";

std::string tools_disk() { return "path=" MARTLET_GUESTS "/tools.ext4,readonly=on,serial=tools"; }

void expect_good(const Report& report) {
  const auto& ended = report.ended();
  EXPECT_EQ(ended.verdict["verdict"], "guest-exit") << ended;
  EXPECT_EQ(ended.outcome.exit_code, 0) << ended;
  EXPECT_FALSE(report.section("dmesg").empty());
  EXPECT_THAT(report.unexplained_complaints(), ::testing::IsEmpty());
}

std::uint64_t interrupts(const Report& report, const std::string& pattern) {
  std::uint64_t sum = 0;
  for (const auto& line : report.section("interrupts")) {
    if (std::regex_search(line, std::regex{pattern})) {
      std::istringstream words{line.substr(line.find(':') + 1)};
      for (std::uint64_t count = 0; words >> count;) {
        sum += count;
      }
    }
  }
  return sum;
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
