#include "vmm/debug/verdict.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "vmm/debug/console_watch.h"

namespace martlet {
namespace {

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span{text.data(), text.size()}); }

TEST(Verdict, ExitCodesAreTheDocumentedOnes) {
  using Kind = Ending::Kind;
  for (const auto& [kind, code] : {std::pair{Kind::PowerOff, 0},
                                   {Kind::Reset, 0},
                                   {Kind::Quit, 0},
                                   {Kind::Timeout, 124},
                                   {Kind::HostError, 125},
                                   {Kind::Panic, 126},
                                   {Kind::TripleFault, 126},
                                   {Kind::KvmError, 126}}) {
    EXPECT_EQ(exit_code_of({.kind = kind}), code) << name_of(kind);
  }
  EXPECT_EQ(exit_code_of({.kind = Kind::GuestExit, .code = 37}), 37);
  EXPECT_EQ(exit_code_of({.kind = Kind::Signal, .code = 15}), 143);
}

TEST(Verdict, JsonHoldsAnyDetail) {
  const auto json = nlohmann::json::parse(to_json(
      {.kind = Ending::Kind::Panic, .vcpu = 1, .detail = "quote \" and \xff\xfe"}, std::chrono::milliseconds{1234}));
  EXPECT_EQ(json["verdict"], "panic");
  EXPECT_EQ(json["exit_code"], 126);
  EXPECT_EQ(json["vcpu"], 1);
  EXPECT_EQ(json["elapsed_ms"], 1234);
}

TEST(ConsoleWatch, FindsAPanicInAnySlicing) {
  const std::string console =
      "[    1.0] hello\r\n[    1.5] Kernel panic - not syncing: Attempted to kill init!\r\n[    1.6] CPU: 0\r\n"
      "[    1.7] ---[ end Kernel panic - not syncing: Attempted to kill init! ]---\r\n";
  for (std::size_t size = 1; size < 40; ++size) {
    ConsoleWatch watch;
    for (std::size_t at = 0; at < console.size(); at += size) {
      EXPECT_FALSE(watch.panic_is_over());
      watch.feed(bytes(std::string_view{console}.substr(at, size)));
    }
    EXPECT_EQ(watch.panic(), "Attempted to kill init!");
    EXPECT_TRUE(watch.panic_is_over());
  }
}

TEST(ConsoleWatch, AQuotationIsNoPanic) {
  ConsoleWatch watch;
  watch.feed(bytes("test log: Kernel panic - not syncing: quoted\n"));
  watch.feed(bytes("[ unfinished Kernel panic - not syncing: quoted\n"));
  EXPECT_FALSE(watch.panic());
  watch.feed(bytes("Kernel panic - not syncing: with no time stamp\n"));
  EXPECT_EQ(watch.panic(), "with no time stamp");
}

TEST(ConsoleWatch, AnEndWithoutABeginningIsNoPanic) {
  ConsoleWatch watch;
  watch.feed(bytes("---[ end Kernel panic - not syncing: said who? ]---\n"));
  EXPECT_FALSE(watch.panic_is_over());
  EXPECT_FALSE(watch.panic());
}

TEST(ConsoleWatch, EndlessLinesAreCutNotKept) {
  ConsoleWatch watch;
  const std::string noise(1U << 20U, 'x');
  watch.feed(bytes(noise));
  watch.feed(bytes("\nKernel panic - not syncing: after noise\n"));
  EXPECT_EQ(watch.panic(), "after noise");
}

}  // namespace
}  // namespace martlet
