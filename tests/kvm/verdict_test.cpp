// What a run comes to by what its consoles say, and by what its vCPUs do in silence.

#include <gtest/gtest.h>

#include "tests/kvm/martlet.h"
#include "tests/unit/xml_check.h"

namespace martlet::test {
namespace {

void expect_verdict(const Ended& guest, std::string_view verdict, int exit_code) {
  EXPECT_EQ(guest.exit_code, exit_code) << guest;
  ASSERT_TRUE(guest.verdict.is_object()) << guest;
  EXPECT_EQ(guest.verdict.value("verdict", ""), verdict) << guest.verdict << guest;
  EXPECT_EQ(guest.verdict.value("exit_code", -1), exit_code) << guest.verdict;
  EXPECT_GE(guest.verdict["command"].size(), 3) << guest.verdict;
}

/// What is said here ends the VM, or it would be halted until killed.
Ended say(const std::string& text, std::vector<std::string> options, const std::string& then = "halt") {
  return run_martlet({.name = "say", .append = "text=" + text + " then=" + then, .options = std::move(options)});
}

TEST(Expect, APromptEndsItWithSuccess) {
  const auto guest = say("Debian|guest_login:_", {"--expect", "login: $"});
  expect_verdict(guest, "expected-output", 0);
  EXPECT_EQ(guest.err, "");
  EXPECT_EQ(guest.verdict["expect"][0]["seen"], "guest login: ") << guest.verdict;
}

TEST(Expect, MissingIsAFailure) {
  expect_verdict(say("something", {"--expect", "login:"}, "exit"), "missing-output", 1);
  const auto late = say("something", {"--expect", "login:", "--timeout", "1s"});
  expect_verdict(late, "timeout", 124);
  EXPECT_NE(late.err.find("expected output missing: 'login:'"), std::string::npos) << late;
}

TEST(Forbid, EndsItAsAFailure) {
  const auto guest = say("well|FAILED:_one|", {"--expect", "never", "--forbid", "^FAILED"});
  expect_verdict(guest, "forbidden-output", 1);
  EXPECT_NE(guest.err.find("'^FAILED' matched: FAILED: one"), std::string::npos) << guest;
}

TEST(Patterns, WhatIsNoneIsRefused) { expect_verdict(say("x", {"--expect", "("}, "exit"), "host-error", 125); }

constexpr const char* kOops =
    "BUG:_kernel_NULL_pointer_dereference,_address:_0000000000000000|Oops:_0002_[#1]_SMP|CPU:_0_PID:_1_Comm:_init|"
    "RIP:_0010:crash+0x12/0x20_[crash]|";

TEST(Findings, AnOopsFailsARunThatEndsWell) {
  const auto guest = say(kOops, {}, "exit");
  expect_verdict(guest, "oops", 126);
  EXPECT_EQ(guest.verdict["where"], "crash+0x12/0x20 [crash]");
  EXPECT_NE(guest.err.find("martlet: oops: BUG: kernel NULL pointer dereference, address: 0000000000000000, at "
                           "crash+0x12/0x20 [crash] (vCPU 0, "),
            std::string::npos)
      << guest;
}

TEST(Findings, FailOnEndsTheVmSoonAfter) { expect_verdict(say(kOops, {"--fail-on", "oops"}), "oops", 126); }

TEST(Findings, FailOnPanicLetsAnOopsPass) {
  const auto guest = say(kOops, {"--fail-on", "panic"}, "exit");
  expect_verdict(guest, "guest-exit", 0);
  EXPECT_EQ(guest.verdict["findings"].size(), 1) << guest.verdict;
  EXPECT_NE(guest.err.find("oops: BUG: kernel NULL pointer"), std::string::npos) << guest;
}

TEST(Ktap, GoesIntoTheVerdictAndJUnit) {
  const TempDir directory;
  const auto file = directory.file("junit.xml");
  const auto guest = say("KTAP_version_1|1..3|ok_1_good|not_ok_2_bad|", {"--junit", file}, "exit");
  expect_verdict(guest, "tests-failed", 1);
  EXPECT_EQ(guest.verdict["tests"]["passed"], 1) << guest.verdict;
  EXPECT_EQ(guest.verdict["tests"]["failed"], 1) << guest.verdict;
  EXPECT_EQ(guest.verdict["tests"]["error"], 1) << guest.verdict;
  const auto xml = read_file(file);
  EXPECT_EQ(xml_fault(xml), "") << xml;
  EXPECT_NE(xml.find("<testcase classname=\"ktap\" name=\"bad\""), std::string::npos) << xml;
}

TEST(Bisect, KnowsGoodBadAndSkipOnly) {
  expect_verdict(say("x", {"--exit", "bisect"}, "exit"), "guest-exit", 0);
  expect_verdict(run_martlet({.name = "exit", .append = "code=200", .options = {"--exit", "bisect"}}), "guest-exit", 1);
  expect_verdict(run_martlet({.name = "reset", .append = "by=triple", .options = {"--exit", "bisect"}}), "triple-fault",
                 1);
}

TEST(Hang, AllHaltedWithInterruptsOff) {
  const auto guest =
      run_martlet({.name = "halt", .append = "until=dead", .options = {"--hang-timeout", "1h", "--timeout", "1m"}});
  expect_verdict(guest, "hang", 126);
  EXPECT_NE(guest.err.find("halted with interrupts off at 0x"), std::string::npos) << guest;
}

TEST(Hang, SpinningWithInterruptsOff) {
  const auto guest = run_martlet({.name = "spin", .options = {"-c", "2", "--hang-timeout", "2s", "--timeout", "1m"}});
  expect_verdict(guest, "hang", 126);
  EXPECT_NE(guest.err.find("spins with interrupts off at 0x"), std::string::npos) << guest;
}

TEST(Hang, OneThatWaitsDoesNot) {
  const auto guest =
      run_martlet({.name = "halt", .append = "until=never", .options = {"--hang-timeout", "3s", "--timeout", "9s"}});
  expect_verdict(guest, "timeout", 124);
  EXPECT_NE(guest.err.find("all vCPUs idle, waiting for interrupts"), std::string::npos) << guest;
}

}  // namespace
}  // namespace martlet::test
