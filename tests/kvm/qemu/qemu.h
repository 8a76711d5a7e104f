#pragma once
// The kvm tier's guests under QEMU, on its software CPU: no KVM is needed.

#include <string>
#include <string_view>
#include <vector>

#include "tests/support/subprocess.h"

namespace martlet::test {

struct QemuGuest {
  std::string_view name;  ///< tests/guest/NAME.cpp
  std::string append{};
  std::string machine = "pc";
  std::string memory = "64M";
  std::vector<std::string> options{};
};

[[nodiscard]] std::vector<std::string> qemu_command(const QemuGuest& guest);

/// The exit code that isa-debug-exit makes of the guest's.
[[nodiscard]] constexpr int debug_exit(int code) { return (code << 1 | 1) & 0xff; }

/// Runs it to its end with its console on stdout.
Outcome run_qemu(QemuGuest guest);

/// It found all as it should be, and said so last.
void expect_satisfied(const Outcome& guest, std::string_view last_words);

}  // namespace martlet::test
