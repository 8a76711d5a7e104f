// The kvm tier's guests under QEMU, which knows nothing of Martlet: what they expect is what the
// specifications say, and not our own habit. QEMU's software CPU, so no KVM is needed.

#include "tests/kvm/qemu/qemu.h"

#include <gtest/gtest.h>

#include <charconv>
#include <ctime>
#include <iomanip>
#include <sstream>

namespace martlet::test {
namespace {

/// Runs it under a QMP monitor and returns what that has to say about the end.
std::string events_of(QemuGuest guest) {
  guest.options.insert(guest.options.end(), {"-serial", "null", "-S", "-chardev", "stdio,id=monitor", "-mon",
                                             "chardev=monitor,mode=control"});
  Subprocess qemu{{.command = qemu_command(guest), .input = Subprocess::Input::Pipe}};
  qemu.type("{\"execute\": \"qmp_capabilities\"}\n{\"execute\": \"cont\"}\n");
  const auto ended = qemu.wait();
  EXPECT_EQ(ended.exit_code, 0) << ended;
  return ended.out;
}

TEST(Entry, HandsOverTheCommandLine) {
  expect_satisfied(run_qemu({.name = "command_line", .append = "one two"}), "[exit=debug absent=0 one two]\n");
}

TEST(Entry, ExceptionsReachTheGuest) { expect_satisfied(run_qemu({.name = "fault"}), "faults done\n"); }

TEST(Entry, AnUnexpectedExceptionEndsTheGuest) {
  EXPECT_EQ(run_qemu({.name = "fault", .append = "by=nobody"}).exit_code, debug_exit(99));
}

TEST(Ports, OfEveryWidthAndStringsBothWays) {
  const auto guest = run_qemu({.name = "ports"});
  expect_satisfied(guest, "\nports done\n");
  EXPECT_TRUE(guest.out.starts_with("every byte of a string, in order\n")) << guest;
}

TEST(Mmio, OfEveryWidthBothWays) { expect_satisfied(run_qemu({.name = "mmio"}), "mmio done\n"); }

TEST(Timers, AllInterrupt) {
  const auto guest = run_qemu({.name = "timers"});
  EXPECT_EQ(guest.exit_code, debug_exit(0)) << guest;
  EXPECT_TRUE(guest.out.starts_with("PIT 10\nAPIC one-shot 10\nAPIC periodic 10\n")) << guest;
}

TEST(Cpus, AllStartAndInterruptEachOther) {
  for (const char* machine : {"pc", "q35", "microvm"}) {
    const auto guest = run_qemu({.name = "smp", .append = "apic=x", .machine = machine, .options = {"-smp", "4"}});
    expect_satisfied(guest, "cpus 4 last id 3\n");
  }
}

TEST(Memory, TwoGiB) {
  const auto guest = run_qemu({.name = "memory", .append = "stride=32", .memory = "2G"});
  EXPECT_EQ(guest.exit_code, debug_exit(0)) << guest;
}

TEST(Memory, FiveGiB) {
  const auto guest = run_qemu({.name = "memory", .append = "stride=32", .memory = "5G"});
  EXPECT_EQ(guest.exit_code, debug_exit(0)) << guest;
  EXPECT_NE(guest.out.find("map 0x100000000 0x80000000 1\n"), std::string::npos) << guest;
}

TEST(Clock, TellsTheHostsDateInUtc) {
  const auto before = std::time(nullptr);
  const auto guest = run_qemu({.name = "clock"});
  const auto after = std::time(nullptr);
  std::tm date{};
  std::istringstream{guest.out} >> std::get_time(&date, "%Y-%m-%dT%H:%M:%SZ");
  const auto told = ::timegm(&date);
  EXPECT_GE(told, before - 2) << guest;
  EXPECT_LE(told, after + 2) << guest;
}

TEST(Halt, AnInterruptEndsIt) {
  const auto guest = run_qemu({.name = "halt", .append = "until=timer"});
  EXPECT_EQ(guest.exit_code, debug_exit(7)) << guest;
  EXPECT_EQ(guest.out, "asleep\nawake\n");
}

TEST(ExitCodes, ByIsaDebugExit) {
  for (const int code : {0, 1, 63, 127, 128, 200}) {
    EXPECT_EQ(run_qemu({.name = "exit", .append = "via=debug code=" + std::to_string(code)}).exit_code,
              debug_exit(code));
  }
  EXPECT_EQ(run_qemu({.name = "exit", .append = "via=debug width=4 code=4660"}).exit_code, debug_exit(0x1234));
}

TEST(Reset, ByEveryRoute) {
  for (const auto& [machine, route] : {std::pair{"pc", "by=i8042"},
                                       {"pc", "by=cf9"},
                                       {"pc", "by=triple"},
                                       {"q35", "by=acpi"},       // a register in port space
                                       {"microvm", "by=acpi"}})  // one in memory
  {
    const auto events = events_of({.name = "reset", .append = route, .machine = machine});
    EXPECT_NE(events.find(R"("reason": "guest-reset")"), std::string::npos) << machine << " " << route << "\n"
                                                                            << events;
  }
}

TEST(PowerOff, ByPm1OrTheSleepControlRegister) {
  for (const char* machine : {"pc", "microvm"}) {
    const auto events = events_of({.name = "power_off", .machine = machine});
    EXPECT_NE(events.find(R"("reason": "guest-shutdown")"), std::string::npos) << machine << "\n" << events;
  }
}

TEST(Panic, ByPvpanic) {
  const auto events = events_of({.name = "panic", .append = "by=pvpanic", .options = {"-device", "pvpanic"}});
  EXPECT_NE(events.find("GUEST_PANICKED"), std::string::npos) << events;
}

TEST(Serial, InputComesBack) {
  for (const char* way : {"by=poll", "by=interrupt"}) {
    Subprocess qemu{
        {.command = qemu_command({.name = "echo", .append = way, .options = {"-serial", "stdio", "-monitor", "none"}}),
         .input = Subprocess::Input::Pipe}};
    ASSERT_TRUE(qemu.wait_for("ready\n")) << qemu.wait();
    qemu.type("hello\x04");
    const auto guest = qemu.wait();
    EXPECT_EQ(guest.exit_code, debug_exit(5)) << guest;
    EXPECT_EQ(guest.out, "ready\nhello\n") << guest;
  }
}

TEST(Serial, OutputArrivesWhole) {
  const auto guest = run_qemu({.name = "flood"});
  EXPECT_EQ(guest.exit_code, debug_exit(5)) << guest;
  EXPECT_EQ(guest.out.size(), std::size_t{65536});
}

}  // namespace
}  // namespace martlet::test
