#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tests/boot/guest.h"
#include "tests/boot/report.h"

namespace martlet::test {

/// What scripts for a guest with virtio devices begin with: their drivers, and the functions
///   disk SERIAL     the device of the disk that has it
///   say NAME CMD…   CMD's output in a section of the report
///   kernel_says     sections interrupts, rings ("virtio_blk packed" for each device) and dmesg
///   await CMD…      until it succeeds
///   port NAME       the name in /dev of that port, once it is there
///   up ADDRESS      gives it to eth0; section mtu
///   reach ADDRESS   pings it, from CPU $cpu: prints "0% packet loss"
///   <&9             silence, for nc -l
///   tool NAME ARG…  one of prepare-guests' programs, once the disk of kToolsDisk is there
extern const std::string_view kVirtioPrelude;

/// Gives the guest those programs.
[[nodiscard]] std::string tools_disk();

/// In section interrupts: how often the one came whose line in /proc/interrupts matches `pattern`, on all CPUs.
[[nodiscard]] std::uint64_t interrupts(const Report& report, const std::string& pattern);

/// The guest ended as its script wished, with status 0, and its kernel found nothing to complain of.
void expect_good(const Report& report);

/// A sparse file of `bytes` zeroes.
void make_file(const std::string& path, std::uint64_t bytes);
void write_file(const std::string& path, std::string_view content);
[[nodiscard]] std::string sha256_of(const std::string& path);
/// Output of a command that succeeds.
std::string output_of(std::vector<std::string> command);

}  // namespace martlet::test
