#include "vmm/debug/symbols.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/fake_kernel.h"
#include "tests/unit/fake_vmlinux.h"
#include "vmm/base/error.h"
#include "vmm/debug/kallsyms.h"

namespace martlet {
namespace {

using testing::HasSubstr;

constexpr std::string_view kMap =
    "0000000000000000 A fixed_percpu_data\n"
    "ffffffff81000000 T _text\n"
    "ffffffff81000000 T startup_64\n"
    "ffffffff81000100 t do_idle\n"
    "not a line\n"
    "ffffffff81000180 T cpu_startup_entry\t[core]\r\n"
    "ffffffff81000200 T _etext\n"
    "ffffffff810002";

TEST(Symbols, OfASystemMap) {
  auto symbols = Symbols::parse_map(kMap);
  EXPECT_EQ(symbols.size(), 5U);
  EXPECT_EQ(symbols.describe(0xffff'ffff'8100'0100), "do_idle+0x0/0x80");
  EXPECT_EQ(symbols.describe(0xffff'ffff'8100'017f), "do_idle+0x7f/0x80");
  EXPECT_EQ(symbols.describe(0xffff'ffff'8100'0180), "cpu_startup_entry+0x0/0x80");
  EXPECT_EQ(symbols.describe(0xffff'ffff'80ff'ffff), "0xffffffff80ffffff");
  EXPECT_EQ(symbols.describe(0xffff'ffff'c000'0000), "0xffffffffc0000000");
  EXPECT_EQ(symbols.find(0xffff'ffff'8100'0004)->name, "_text");
  EXPECT_EQ(symbols.address_of("do_idle"), 0xffff'ffff'8100'0100);
  EXPECT_EQ(symbols.address_of("do_idl"), std::nullopt);
}

TEST(Symbols, MoveWithTheKernel) {
  auto symbols = Symbols::parse_map(kMap);
  symbols.set_offset(0x1c80'0000);
  EXPECT_EQ(symbols.describe(0xffff'ffff'9d80'0110), "do_idle+0x10/0x80");
  EXPECT_EQ(symbols.address_of("do_idle"), 0xffff'ffff'9d80'0100);
  EXPECT_EQ(symbols.describe(0xffff'ffff'8100'0110), "0xffffffff81000110");
}

TEST(Symbols, NoneAreNoTrouble) {
  const Symbols symbols;
  EXPECT_EQ(symbols.describe(0), "0x0");
  EXPECT_FALSE(symbols.address_of(""));
}

TEST(Symbols, OfAVmlinux) {
  FakeVmlinux vmlinux;
  vmlinux.add_build_id("\x01\x23\xfe");
  vmlinux.add_symbol("startup_64", 0xffff'ffff'8100'0000, 0x40);
  vmlinux.add_symbol("file.c", 0xffff'ffff'8100'0000, 0, STT_FILE);
  vmlinux.add_symbol("elsewhere", 0xffff'ffff'8100'0010, 0, STT_NOTYPE, SHN_UNDEF);
  vmlinux.add_symbol("jiffies", 0xffff'ffff'8200'0000, 8, STT_OBJECT);
  const auto symbols = Symbols::load(vmlinux.write());
  EXPECT_EQ(symbols.size(), 2U);
  EXPECT_EQ(symbols.build_id(), "0123fe");
  EXPECT_EQ(symbols.describe(0xffff'ffff'8100'0020), "startup_64+0x20/0x40");
  EXPECT_EQ(symbols.address_of("jiffies"), 0xffff'ffff'8200'0000);
}

TEST(Symbols, FilesThatHoldNoneSayWhatWasExpected) {
  const auto message = [](const std::string& path) -> std::string {
    try {
      (void)Symbols::load(path);
      return "loaded";
    } catch (const HostError& error) {
      return error.what();
    }
  };
  FakeVmlinux stripped;
  EXPECT_THAT(message(stripped.write()), HasSubstr("it was stripped"));
  EXPECT_THAT(message("/dev/null"), HasSubstr("expected a System.map or a vmlinux"));
  EXPECT_THAT(message("/nonexistent/vmlinux"), HasSubstr("/nonexistent/vmlinux"));
  EXPECT_THROW(ElfFile{"/dev/null"}, HostError);
}

TEST(Symbols, AVmlinuxThatLies) {
  constexpr auto kHuge = std::uint64_t{1} << 63U;
  const auto symbols_of = [](auto lie) {
    FakeVmlinux vmlinux;
    vmlinux.add_build_id("id");
    vmlinux.add_symbol("startup_64", 0xffff'ffff'8100'0000, 0x40);
    const ElfFile file{vmlinux.write(lie)};
    return Symbols{file}.size();
  };
  constexpr std::size_t kNotes = 1, kTable = 2, kStrings = 3, kNames = 4;
  EXPECT_EQ(symbols_of([](auto&) {}), 1U);
  EXPECT_EQ(symbols_of([&](auto& headers) { headers[kTable].sh_offset = kHuge; }), 0U);
  EXPECT_EQ(symbols_of([&](auto& headers) { headers[kTable].sh_size = ~0ULL; }), 0U);
  EXPECT_EQ(symbols_of([&](auto& headers) { headers[kTable].sh_link = ~0U; }), 0U);
  EXPECT_EQ(symbols_of([&](auto& headers) { headers[kTable].sh_name = ~0U; }), 0U);
  EXPECT_EQ(symbols_of([&](auto& headers) { headers[kTable].sh_type = SHT_NOBITS; }), 0U);
  EXPECT_EQ(symbols_of([&](auto& headers) { headers[kStrings].sh_size = 1; }), 0U);
  EXPECT_EQ(symbols_of([&](auto& headers) { headers[kNames].sh_size = kHuge; }), 0U);
  EXPECT_EQ(symbols_of([&](auto& headers) { headers[kNotes].sh_size = 13; }), 1U);
}

/// A kernel's own symbols, each name's letters being tokens of one letter but for "T" + "do_", which are token 1.
class FakeKallsyms {
 public:
  static constexpr std::uint64_t kPlace = FakeKernel::kText + 0x20'0000;
  enum Part : std::uint64_t {
    Names = 0,
    Tokens = 0x4000,
    Index = 0x6000,
    Offsets = 0x7000,
    Base = 0x8000,
    Count = 0x8008
  };

  explicit FakeKallsyms(FakeKernel& kernel) {
    for (const auto& [name, part] : std::initializer_list<std::pair<const char*, Part>>{{"names", Names},
                                                                                        {"token_table", Tokens},
                                                                                        {"token_index", Index},
                                                                                        {"offsets", Offsets},
                                                                                        {"relative_base", Base},
                                                                                        {"num_syms", Count}}) {
      kernel.say(fmt::format("SYMBOL(kallsyms_{})", name), fmt::format("{:x}", kPlace + part));
    }
    std::string tokens{"Tdo_\0", 5};
    for (unsigned i = 0; i < 256; ++i) {
      kernel.poke(kPlace + Index + 2 * i, static_cast<std::uint16_t>(i == 1 ? 0 : tokens.size()));
      tokens += std::string{static_cast<char>(i), '\0'};
    }
    kernel.poke(kPlace + Tokens, tokens);
    std::string names;
    for (const std::string_view name : {"T_text", "\001idle", "Ddata"}) {
      names += static_cast<char>(name.size());
      names += name;
    }
    const std::string long_name = 'T' + std::string(299, 'x');
    names += static_cast<char>(0x80 | (long_name.size() & 0x7f));
    names += static_cast<char>(long_name.size() >> 7);
    names += long_name;
    kernel.poke(kPlace + Names, names);
    kernel.poke(kPlace + Base, FakeKernel::kText);
    kernel.poke(kPlace + Count, std::uint32_t{4});
  }
};

TEST(Kallsyms, AreReadFromTheGuest) {
  for (const bool downwards : {false, true}) {
    FakeKernel kernel;
    const FakeKallsyms own{kernel};
    for (std::int32_t i = 0; i < 4; ++i) {
      kernel.poke(FakeKallsyms::kPlace + FakeKallsyms::Offsets + static_cast<std::uint64_t>(4 * i),
                  downwards ? -1 - 0x100 * i : 0x100 * i);
    }
    const auto symbols = read_kallsyms(kernel.memory, kernel.info());
    EXPECT_EQ(symbols.size(), 4U);
    EXPECT_EQ(symbols.describe(FakeKernel::kText), "_text+0x0/0x100");
    EXPECT_EQ(symbols.describe(FakeKernel::kText + 0x1ff), "do_idle+0xff/0x100");
    EXPECT_EQ(symbols.address_of("data"), FakeKernel::kText + 0x200);
    EXPECT_EQ(symbols.address_of(std::string(299, 'x')), FakeKernel::kText + 0x300);
  }
}

TEST(Kallsyms, AGuestThatLiesGetsNone) {
  FakeKernel kernel;
  const FakeKallsyms own{kernel};
  kernel.poke(FakeKallsyms::kPlace + FakeKallsyms::Count, ~0U);
  EXPECT_TRUE(read_kallsyms(kernel.memory, kernel.info()).empty());
  kernel.poke(FakeKallsyms::kPlace + FakeKallsyms::Count, 0xf'0000U);  // more than there is mapped of
  kernel.poke(FakeKallsyms::kPlace + FakeKallsyms::Offsets, std::int32_t{-1});
  EXPECT_LE(read_kallsyms(kernel.memory, kernel.info()).size(), 0xf'0000U);
  for (std::uint64_t i = 0; i < 256; ++i) {  // tokens without an end, from anywhere
    kernel.poke(FakeKallsyms::kPlace + FakeKallsyms::Index + 2 * i, std::uint16_t{0xffff});
  }
  EXPECT_TRUE(read_kallsyms(kernel.memory, kernel.info()).empty());
  EXPECT_TRUE(read_kallsyms(kernel.memory, VmCoreInfo::parse("OSRELEASE=6\nPAGESIZE=4096\n").value()).empty());
}

/// Symbols all at one address, whose names and tokens a test makes: each part has megabytes.
class VastKallsyms {
 public:
  static constexpr std::uint64_t kPart = 4U << 20U;
  static constexpr std::uint64_t kPlace = FakeKernel::kDirectMap + 5 * kPart;
  enum Part : std::uint64_t { Tokens, Index, Offsets, Base, Count, Names };

  explicit VastKallsyms(std::uint32_t count) {
    for (const auto& [name, part] : std::initializer_list<std::pair<const char*, Part>>{{"names", Names},
                                                                                        {"token_table", Tokens},
                                                                                        {"token_index", Index},
                                                                                        {"offsets", Offsets},
                                                                                        {"relative_base", Base},
                                                                                        {"num_syms", Count}}) {
      kernel.say(fmt::format("SYMBOL(kallsyms_{})", name), fmt::format("{:x}", at(part)));
    }
    kernel.poke(at(Base), FakeKernel::kText);
    kernel.poke(at(Count), count);
  }
  static constexpr std::uint64_t at(Part part) { return kPlace + part * kPart; }
  [[nodiscard]] Symbols read() const { return read_kallsyms(kernel.memory, kernel.info()); }

  FakeKernel kernel;
};

TEST(Kallsyms, LongNamesAreBounded) {
  constexpr std::uint32_t kMany = 1U << 20U;
  const VastKallsyms vast{kMany};
  vast.kernel.poke(VastKallsyms::at(VastKallsyms::Tokens), std::string(0xffff, 'x'));  // every token's text
  vast.kernel.poke(VastKallsyms::at(VastKallsyms::Names), std::string(std::size_t{2} * kMany, '\1'));
  const auto symbols = vast.read();
  ASSERT_TRUE(symbols.find(FakeKernel::kText));
  EXPECT_EQ(symbols.find(FakeKernel::kText)->name.size(), 511U);
  EXPECT_LE(symbols.size() * 512, std::size_t{64} << 20U);
}

TEST(Kallsyms, PackedNamesAreBounded) {
  constexpr std::size_t kLength = 0x7fff;  // the longest that there is: of tokens without a letter
  constexpr std::size_t kMany = (std::size_t{16} << 20U) / kLength + 1;
  const VastKallsyms vast{kMany + 1};
  vast.kernel.poke(VastKallsyms::at(VastKallsyms::Tokens), std::string_view{"\0Tname", 7});
  vast.kernel.poke(VastKallsyms::at(VastKallsyms::Index) + 2, std::uint16_t{1});  // of token 1
  for (std::size_t i = 0; i < kMany; ++i) {
    vast.kernel.poke(VastKallsyms::at(VastKallsyms::Names) + i * (kLength + 2), std::uint16_t{0xffff});
  }
  vast.kernel.poke(VastKallsyms::at(VastKallsyms::Names) + kMany * (kLength + 2), std::string_view{"\1\1"});
  EXPECT_TRUE(vast.read().empty());
}

}  // namespace
}  // namespace martlet
