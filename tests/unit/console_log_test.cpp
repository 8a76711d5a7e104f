#include "vmm/debug/console_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

namespace martlet {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

void add(ConsoleLog& log, std::string_view text) { log.add(std::as_bytes(std::span{text})); }

TEST(ConsoleLog, KeepsAllOfALittle) {
  ConsoleLog log;
  EXPECT_EQ(log.text(), "");
  add(log, "one\n");
  add(log, "");
  add(log, "two\n");
  EXPECT_EQ(log.text(), "one\ntwo\n");
}

TEST(ConsoleLog, KeepsTheBeginningAndTheEndOfMuch) {
  std::string all;
  ConsoleLog log;
  std::mt19937 random{1};
  while (all.size() < (std::size_t{10} << 20U)) {
    std::string piece;
    for (auto length = random() % 70'000; piece.size() < length;) {
      piece += std::to_string(random()) + "\n";
    }
    all += piece;
    add(log, piece);
  }
  const auto kept = log.text();
  const std::size_t beginning = std::size_t{1} << 20U;
  const std::size_t end = std::size_t{3} << 20U;
  EXPECT_THAT(kept, StartsWith(all.substr(0, beginning)));
  EXPECT_THAT(kept, EndsWith(all.substr(all.size() - end)));
  EXPECT_THAT(kept, HasSubstr(std::to_string(all.size() - beginning - end) + " bytes"));
}

TEST(ConsoleLog, ExactlyFullLosesNothing) {
  ConsoleLog log;
  const std::string all(std::size_t{4} << 20U, 'x');
  add(log, all);
  EXPECT_EQ(log.text(), all);
  add(log, "y");
  EXPECT_THAT(log.text(), HasSubstr("1 bytes"));
  EXPECT_THAT(log.text(), EndsWith("xy"));
}

TEST(ConsoleLog, TellsItsLastLines) {
  ConsoleLog log;
  EXPECT_EQ(log.last(2), "");
  add(log, "one\r\ntwo\r\nthree");
  EXPECT_EQ(log.last(1), "three");
  EXPECT_EQ(log.last(2), "two\nthree");
  add(log, "\r\n\r\n");
  EXPECT_EQ(log.last(3), "one\ntwo\nthree");
  EXPECT_EQ(log.last(9), "one\ntwo\nthree");
  EXPECT_EQ(log.last(0), "");
}

}  // namespace
}  // namespace martlet
