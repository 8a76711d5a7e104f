#include "vmm/debug/dmesg.h"

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <vector>

#include "tests/unit/fake_log.h"

namespace martlet {
namespace {

constexpr auto kMax = std::numeric_limits<std::uint64_t>::max();

class NewLog : public testing::Test {
 protected:
  std::optional<std::vector<LogRecord>> read() const { return read_dmesg(kernel.memory, kernel.info()); }
  std::string text() const { return format_dmesg(read().value_or(std::vector<LogRecord>{})); }

  FakeKernel kernel;
  FakeRing ring{kernel};
};

TEST_F(NewLog, IsPrintedAsDmesgDoes) {
  ring.print(0, 5, "Linux version 6.1.0-fake");
  ring.print(1'234'567'890, 3, "two\nlines");
  ring.print(12'345'000'000'999, 7, "");
  EXPECT_EQ(text(),
            "[    0.000000] Linux version 6.1.0-fake\n[    1.234567] two\n               lines\n[12345.000000] \n");
  EXPECT_EQ(format_dmesg(*read(), LogLevels::Shown),
            "<13>[    0.000000] Linux version 6.1.0-fake\n<11>[    1.234567] two\n                   lines\n"
            "<15>[12345.000000] \n");
}

TEST_F(NewLog, KeepsTheYoungestWhenItsRingsWrap) {
  for (unsigned i = 0; i < 100; ++i) {
    ring.print(i * 1'000'000'000ULL, 6, fmt::format("record {} {}", i, std::string(i % 13, 'x')));
  }
  const auto records = read();
  ASSERT_TRUE(records);
  ASSERT_EQ(records->size(), 8U);
  for (unsigned i = 92; i < 100; ++i) {
    EXPECT_EQ((*records)[i - 92].text, fmt::format("record {} {}", i, std::string(i % 13, 'x')));
    EXPECT_EQ((*records)[i - 92].time_ns, i * 1'000'000'000ULL);
  }
}

TEST_F(NewLog, HasNoRecordsThatAreNotWhole) {
  ring.print(0, 6, "reserved", FakeRing::Reserved);
  ring.print(0, 6, "committed", FakeRing::Committed);
  ring.print(0, 6, "finalized", FakeRing::Finalized);
  ring.print(0, 6, "reusable", FakeRing::Reusable);
  EXPECT_EQ(text(), "[    0.000000] committed\n[    0.000000] finalized\n");
}

TEST_F(NewLog, OddBytesDoNotReachATerminal) {
  ring.print(0, 6, "\x1b[2J\r\tb\xc3\xa9\\");
  EXPECT_EQ(text(), "[    0.000000] \\x1b[2J\\x0d\tb\\xc3\\xa9\\\n");
}

TEST_F(NewLog, ALengthThatLiesIsCutAtTheBlock) {
  ring.print(0, 6, "12345678");
  kernel.poke(FakeRing::kInfos + 4, std::uint16_t{0xffff});
  EXPECT_EQ(text(), "[    0.000000] 12345678\n");
}

TEST_F(NewLog, BlocksThatMakeNoSenseAreLeftOut) {
  ring.describe(0, 6, 10, 8, 8);         // empty
  ring.describe(0, 6, 10, 16, 8);        // backwards
  ring.describe(0, 6, 10, kMax - 7, 4);  // wrapped
  ring.describe(0, 6, 10, 0, kMax - 7);
  ring.print(0, 6, "the end");
  const auto records = read();
  ASSERT_TRUE(records);
  EXPECT_EQ(records->back().text, "the end");
  EXPECT_LE(records->size(), 5U);
}

TEST_F(NewLog, AllOfItAtOnceIsNoMoreThanTheRingHolds) {
  for (int i = 0; i < 8; ++i) {
    ring.describe(0, 6, 0xffff, 0, 1U << FakeRing::kSizeBits);
  }
  const auto records = read();
  ASSERT_TRUE(records);
  std::size_t total = 0;
  for (const auto& record : *records) {
    total += record.text.size();
  }
  EXPECT_LE(total, 1U << FakeRing::kSizeBits);
}

TEST_F(NewLog, NewlinesAreBounded) {
  const std::vector<LogRecord> records(100, LogRecord{.text = std::string(0xffff, '\n')});
  const auto printed = format_dmesg(records);
  EXPECT_LT(printed.size(), std::size_t{66} << 20U);
  EXPECT_TRUE(printed.ends_with("\n(the rest is cut: too long)\n"));
}

TEST_F(NewLog, IdsThatAreFarApartAreBounded) {
  ring.print(0, 6, "one");
  for (const auto& [head, tail] : {std::pair{kMax, std::uint64_t{0}},
                                   {std::uint64_t{0}, std::uint64_t{1}},
                                   {std::uint64_t{0}, kMax},
                                   {kMax, kMax}}) {
    ring.set_ids(head, tail);
    EXPECT_LE(read()->size(), 8U);
  }
}

TEST_F(NewLog, SizesBeyondLinuxOwnAreRefused) {
  kernel.poke(FakeRing::kRing + 16, std::uint32_t{21});
  EXPECT_FALSE(read());
  kernel.poke(FakeRing::kRing + 16, std::uint32_t{3});
  EXPECT_TRUE(read());
  kernel.poke(FakeRing::kRing + 84, std::uint32_t{64});
  EXPECT_FALSE(read());
}

TEST_F(NewLog, PointersToNowhereYieldNothing) {
  ring.print(0, 6, "one");
  struct Pointer {
    std::uint64_t place;
    std::uint64_t right;
  };
  for (const auto& [place, right] :
       {Pointer{24, FakeRing::kDescs}, Pointer{32, FakeRing::kInfos}, Pointer{88, FakeRing::kTexts}}) {
    for (const std::uint64_t nowhere : {std::uint64_t{0}, kMax, std::uint64_t{0xffff'ffff'ffff'fff0},
                                        FakeKernel::kDirectMap + FakeKernel::kRam - 4}) {
      kernel.poke(FakeRing::kRing + place, nowhere);
      EXPECT_EQ(text(), "") << place << ' ' << nowhere;
    }
    kernel.poke(FakeRing::kRing + place, right);
  }
  EXPECT_EQ(text(), "[    0.000000] one\n");
  kernel.poke(FakeRing::kRing - 8, std::uint64_t{0});
  EXPECT_FALSE(read());
}

TEST_F(NewLog, NeedsAllOfVmcoreinfo) {
  ring.print(0, 6, "one");
  ASSERT_TRUE(read());
  for (const std::string_view key : {"SYMBOL(prb)", "OFFSET(prb_desc.state_var)", "SIZE(printk_info)",
                                     "SYMBOL(swapper_pg_dir)", "NUMBER(phys_base)"}) {
    auto text_without = kernel.text;
    text_without[text_without.find(key)] = '-';
    EXPECT_FALSE(read_dmesg(kernel.memory, VmCoreInfo::parse(text_without).value())) << key;
  }
}

class OldLog : public testing::Test {
 protected:
  std::string text() const {
    return format_dmesg(read_dmesg(kernel.memory, kernel.info()).value_or(std::vector<LogRecord>{}), LogLevels::Shown);
  }
  FakeKernel kernel;
  FakeOldLog log{kernel};
};

TEST_F(OldLog, IsReadAcrossItsEnd) {
  log.put(128, 48, 1'000'000'000, 4, "first");
  log.put(176, 32, 2'000'000'000, 6, "second");
  log.put(208, 0, 0, 0, "");
  log.put(0, 32, 3'000'000'000, 6, "third");
  log.set_indices(128, 32);
  EXPECT_EQ(text(), "<4>[    1.000000] first\n<6>[    2.000000] second\n<6>[    3.000000] third\n");
}

TEST_F(OldLog, GoesRoundOnceAtMost) {
  log.put(0, 128, 0, 6, "a");
  log.put(128, 0, 0, 0, "");
  log.set_indices(0, 77);  // which no record begins at
  EXPECT_EQ(text(), "<6>[    0.000000] a\n<6>[    0.000000] a\n");
  log.put(0, 0, 0, 0, "");
  EXPECT_EQ(text(), "");
}

TEST_F(OldLog, TinyRecordsAreBounded) {
  constexpr std::uint32_t kMany = 3U << 19U;  // of 16 bytes: 24 MiB
  const auto place = FakeKernel::kDirectMap + (std::uint64_t{32} << 20U);
  std::vector<std::array<std::uint16_t, 8>> tiny(kMany, {0, 0, 0, 0, 16, 0, 0, 0});
  ASSERT_TRUE(kernel.memory.write(GuestAddr{FakeKernel::physical(place)}, std::as_bytes(std::span{tiny})));
  kernel.poke(FakeOldLog::kVariables, place);
  kernel.poke(FakeOldLog::kVariables + 8, kMany * 16);
  log.set_indices(0, kMany * 16 - 16);
  EXPECT_EQ(read_dmesg(kernel.memory, kernel.info())->size(), std::size_t{1} << 20U);
  auto& words = kernel.text;
  words.replace(words.find("SIZE(printk_log)=16"), 19, "SIZE(printk_log)=1");
  EXPECT_FALSE(read_dmesg(kernel.memory, kernel.info())) << "a record's header is no byte";
}

TEST_F(OldLog, RecordsThatMakeNoSenseEndIt) {
  log.put(0, 32, 0, 6, "good");
  log.set_indices(0, 100);
  log.put(32, 15, 0, 6, "shorter than its header");
  EXPECT_EQ(text(), "<6>[    0.000000] good\n");
  log.put(32, 16, 0, 6, "longer than it says");
  EXPECT_EQ(text(), "<6>[    0.000000] good\n");
  log.put(32, 0xffff, 0, 6, "longer than the buffer");
  EXPECT_EQ(text(), "<6>[    0.000000] good\n");
  log.set_indices(0xffff'fff0, 0);
  EXPECT_EQ(text(), "");
}

}  // namespace
}  // namespace martlet
