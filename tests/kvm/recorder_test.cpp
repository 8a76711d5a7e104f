// What --stats, --trace and SIGUSR2 tell of a running machine.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <nlohmann/json.hpp>

#include "tests/kvm/martlet.h"

namespace martlet::test {
namespace {

using ::testing::HasSubstr;

TEST(Trace, HoldsTheStartTheMilestonesAndEachExit) {
  const TempDir directory;
  const auto file = directory.file("trace.json");
  const auto guest = run_martlet({.name = "power_off", .options = {"--trace", file}});
  ASSERT_EQ(guest.exit_code, 0) << guest;

  const auto events = nlohmann::json::parse(read_file(file));
  const auto named = [&](std::string_view name) {
    return std::ranges::find_if(events, [&](const nlohmann::json& event) { return event["name"] == name; });
  };
  for (const char* name : {"load kernel", "first KVM_RUN", "first console byte", "uart", "acpi sleep"}) {
    EXPECT_NE(named(name), events.end()) << name << "\n" << events.dump(1);
  }
  const auto sleep = *named("acpi sleep");
  EXPECT_EQ(sleep["ph"], "X");
  EXPECT_EQ(sleep["args"]["exit"], "write");
  const auto start = *named("first KVM_RUN");
  EXPECT_LT(start["ts"].get<double>(), sleep["ts"].get<double>());
}

TEST(Trace, HoldsTheTurnsOfQueues) {
  const TempDir directory;
  const auto file = directory.file("trace.json");
  const auto guest =
      run_martlet({.name = "virtio_rng", .append = "irq=msix", .options = {"--rng", "-m", "64M", "--trace", file}});
  ASSERT_EQ(guest.exit_code, 0) << guest;
  const auto events = nlohmann::json::parse(read_file(file));
  EXPECT_TRUE(std::ranges::any_of(events, [](const nlohmann::json& event) {
    return event["name"] == "queue 0" && event["ph"] == "X" && event["dur"].get<double>() >= 0;
  })) << events.dump(1);
}

TEST(Trace, WhereNoFileCanBeIsRefused) {
  const auto guest = run({.command = martlet_command({.name = "power_off", .options = {"--trace", "/nowhere/trace"}})});
  EXPECT_EQ(guest.exit_code, 125);
  EXPECT_THAT(guest.err, HasSubstr("/nowhere/trace"));
}

TEST(Statistics, TellHowLongExitsTook) {
  const auto guest = run_martlet({.name = "power_off", .options = {"--stats"}});
  EXPECT_EQ(guest.exit_code, 0);
  EXPECT_THAT(guest.err, HasSubstr("p99 us"));
  EXPECT_THAT(guest.err, HasSubstr("write  acpi sleep                    1"));
}

// Both vCPUs are brought to rest and let go each time; the guest notices nothing.
TEST(Statistics, ComeWheneverSigusr2AsksAndTheGuestGoesOn) {
  Subprocess vmm{
      {.command = martlet_command({.name = "echo", .options = {"-c", "2"}}), .input = Subprocess::Input::Pipe}};
  ASSERT_TRUE(vmm.wait_for("ready"));
  for (int i = 0; i < 20; ++i) {
    vmm.send_signal(SIGUSR2);
    ASSERT_TRUE(vmm.wait_for_error("exits to user space: ")) << vmm.wait();
    const auto word = "word" + std::to_string(i);
    vmm.type(word);
    ASSERT_TRUE(vmm.wait_for(word)) << vmm.wait();
  }
  vmm.send_signal(SIGTERM);
  ASSERT_TRUE(vmm.wait_for_error("power button"));
  vmm.send_signal(SIGTERM);
  EXPECT_EQ(vmm.wait().exit_code, 128 + SIGTERM);
}

}  // namespace
}  // namespace martlet::test
