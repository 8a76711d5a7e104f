#include "vmm/base/units.h"

#include <gtest/gtest.h>

#include "vmm/base/error.h"

namespace martlet {
namespace {

using std::chrono::milliseconds;

TEST(ParseSize, TakesUnitsAndBareMebibytes) {
  EXPECT_EQ(parse_size("512M", "-m"), 512ULL << 20U);
  EXPECT_EQ(parse_size("512", "-m"), 512ULL << 20U);
  EXPECT_EQ(parse_size("64k", "-m"), 64ULL << 10U);
  EXPECT_EQ(parse_size("2G", "-m"), 2ULL << 30U);
  EXPECT_EQ(parse_size("16T", "-m"), 16ULL << 40U);
  EXPECT_EQ(parse_size("0", "-m"), 0U);
}

TEST(ParseBytes, TakesTheSameUnitsButBareBytes) {
  EXPECT_EQ(parse_bytes("512", "block_size"), 512U);
  EXPECT_EQ(parse_bytes("4k", "block_size"), 4096U);
  EXPECT_THROW(static_cast<void>(parse_bytes("4 k", "block_size")), HostError);
}

TEST(ParseSize, RefusesTheRestByName) {
  for (const auto* text : {"", "M", "1.5G", "-1", "1GB", "1 G", "99999999999999999999", "99999999T", "0x10"}) {
    try {
      static_cast<void>(parse_size(text, "--memory"));
      ADD_FAILURE() << text;
    } catch (const HostError& error) {
      EXPECT_NE(std::string{error.what()}.find("--memory"), std::string::npos);
    }
  }
}

TEST(ParseDuration, TakesUnitsAndBareSeconds) {
  EXPECT_EQ(parse_duration("250ms", "t"), milliseconds{250});
  EXPECT_EQ(parse_duration("60", "t"), milliseconds{60'000});
  EXPECT_EQ(parse_duration("60s", "t"), milliseconds{60'000});
  EXPECT_EQ(parse_duration("5m", "t"), milliseconds{300'000});
  EXPECT_EQ(parse_duration("1h", "t"), milliseconds{3'600'000});
  for (const auto* text : {"", "0", "0s", "-5s", "5d", "s", "1.5s", "99999999999999h"}) {
    EXPECT_THROW(static_cast<void>(parse_duration(text, "t")), HostError) << text;
  }
}

TEST(FormatSize, IsForPeople) {
  EXPECT_EQ(format_size(512ULL << 20U), "512 MiB");
  EXPECT_EQ(format_size(5ULL << 30U), "5 GiB");
  EXPECT_EQ(format_size(1000), "1000 bytes");
}

}  // namespace
}  // namespace martlet
