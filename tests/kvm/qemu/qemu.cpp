#include "tests/kvm/qemu/qemu.h"

#include <gtest/gtest.h>

namespace martlet::test {

std::vector<std::string> qemu_command(const QemuGuest& guest) {
  std::vector<std::string> command{"qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-nodefaults",
                                   "-no-user-config", "-display", "none", "-vga", "none", "-no-reboot", "-device",
                                   "isa-debug-exit,iobase=0xf4,iosize=4", "-M", guest.machine, "-m", guest.memory,
                                   "-kernel", std::string{GUEST_DIR "/"}.append(guest.name).append(".elf"),
                                   // Where nothing answers, a PC's bus reads all ones and QEMU reads zero.
                                   "-append", "exit=debug absent=0 " + guest.append};
  command.insert(command.end(), guest.options.begin(), guest.options.end());
  return command;
}

Outcome run_qemu(QemuGuest guest) {
  guest.options.insert(guest.options.end(), {"-serial", "stdio", "-monitor", "none"});
  return run({.command = qemu_command(guest), .input = Subprocess::Input::Null});
}

void expect_satisfied(const Outcome& guest, std::string_view last_words) {
  EXPECT_EQ(guest.exit_code, debug_exit(0)) << guest;
  EXPECT_EQ(guest.out.find("FAILED"), std::string::npos) << guest;
  EXPECT_TRUE(guest.out.ends_with(last_words)) << guest;
}

}  // namespace martlet::test
