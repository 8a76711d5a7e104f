#include "devices/fw_cfg.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace martlet {
namespace {

constexpr std::uint64_t kRam = 1U << 20U;
constexpr std::uint64_t kAccess = 0x1000;
constexpr std::uint64_t kBuffer = 0x2000;

constexpr std::uint32_t kError = 1;
constexpr std::uint32_t kRead = 2;
constexpr std::uint32_t kSkip = 4;
constexpr std::uint32_t kSelect = 8;
constexpr std::uint32_t kWrite = 16;
constexpr std::uint32_t kUntouched = 0x5555'5555;

constexpr std::uint32_t select_bits(std::uint16_t key) { return std::uint32_t{key} << 16U | kSelect; }

/// A driver, such as Linux's.
struct FwCfgGuest : testing::Test {
  void select(std::uint16_t key) { out(0, key); }
  std::string read_data(std::size_t size) {
    std::string text(size, '\0');
    for (auto& c : text) {
      std::byte byte{0xee};
      device.read(1, {&byte, 1});
      c = static_cast<char>(byte);
    }
    return text;
  }
  template <class T>
  void out(std::uint64_t offset, T value) {
    device.write(offset, std::as_bytes(std::span{&value, 1}));
  }
  template <class T>
  T in(std::uint64_t offset) {
    T value{};
    device.read(offset, std::as_writable_bytes(std::span{&value, 1}));
    return value;
  }
  void start(std::uint64_t access) {
    out(4, __builtin_bswap32(static_cast<std::uint32_t>(access >> 32U)));
    out(8, __builtin_bswap32(static_cast<std::uint32_t>(access)));
  }
  /// What the device makes of control: 0 or kError.
  std::uint32_t dma(std::uint32_t control, std::uint32_t length, std::uint64_t address) {
    (void)memory.write(GuestAddr{kAccess}, __builtin_bswap32(control));
    (void)memory.write(GuestAddr{kAccess + 4}, __builtin_bswap32(length));
    (void)memory.write(GuestAddr{kAccess + 8}, __builtin_bswap64(address));
    start(kAccess);
    return __builtin_bswap32(memory.read<std::uint32_t>(GuestAddr{kAccess}).value_or(kUntouched));
  }
  void put(std::string_view bytes) {
    (void)memory.write(GuestAddr{kBuffer}, std::as_bytes(std::span{bytes.data(), bytes.size()}));
  }
  std::string buffer(std::size_t size) {
    std::string text(size, '\0');
    std::memcpy(text.data(), memory.slice(GuestAddr{kBuffer}, size)->data(), size);
    return text;
  }
  /// As fw_cfg_write_vmcoreinfo() does.
  std::uint32_t announce(std::uint16_t format, std::uint32_t size, std::uint64_t paddr) {
    (void)memory.write(GuestAddr{kBuffer}, std::uint16_t{0});
    (void)memory.write(GuestAddr{kBuffer + 2}, format);
    (void)memory.write(GuestAddr{kBuffer + 4}, size);
    (void)memory.write(GuestAddr{kBuffer + 8}, paddr);
    return dma(select_bits(0x20) | kWrite, 16, kBuffer);
  }

  const std::array<GuestRange, 1> ranges{GuestRange{GuestAddr{0}, kRam}};
  GuestMemory memory{ranges};
  FwCfg device{memory};
};

TEST_F(FwCfgGuest, SaysWhatItIs) {
  select(0);
  EXPECT_EQ(read_data(6), (std::string{"QEMU\0\0", 6}));
  select(1);
  EXPECT_EQ(read_data(4), (std::string{"\3\0\0\0", 4}));
  EXPECT_EQ(in<std::uint32_t>(4), 0x554d4551U) << "QEMU";
  EXPECT_EQ(in<std::uint32_t>(8), 0x47464320U) << " CFG";
}

TEST_F(FwCfgGuest, ListsOneFile) {
  select(0x19);
  const auto directory = read_data(68);
  EXPECT_EQ(directory.substr(0, 12), (std::string{"\0\0\0\1\0\0\0\x10\0\x20\0\0", 12}));
  EXPECT_EQ(directory.substr(12), std::string{"etc/vmcoreinfo"} + std::string(42, '\0'));
  EXPECT_EQ(read_data(2), (std::string{"\0\0", 2})) << "and no more";
}

TEST_F(FwCfgGuest, TheFileSaysThatElfIsTakenAndTakesWhereItIs) {
  EXPECT_FALSE(device.vmcoreinfo());
  select(0x20);
  EXPECT_EQ(read_data(16), (std::string{"\1"} + std::string(15, '\0')));
  EXPECT_EQ(announce(1, 0xabc, 0x1'2345'6000), 0U);
  const auto note = device.vmcoreinfo();
  ASSERT_TRUE(note);
  EXPECT_EQ(raw(note->start), 0x1'2345'6000U);
  EXPECT_EQ(note->size, 0xabcU);
  select(0x20);
  EXPECT_EQ(read_data(16).substr(2, 6), (std::string{"\1\0\xbc\x0a\0\0", 6}));
}

TEST_F(FwCfgGuest, WhatPointsNowhereIsNothing) {
  EXPECT_EQ(announce(0, 0x100, 0x1000), 0U);
  EXPECT_FALSE(device.vmcoreinfo()) << "no format";
  EXPECT_EQ(announce(2, 0x100, 0x1000), 0U);
  EXPECT_FALSE(device.vmcoreinfo()) << "another one";
  EXPECT_EQ(announce(1, 0, 0x1000), 0U);
  EXPECT_FALSE(device.vmcoreinfo()) << "empty";
  EXPECT_EQ(announce(1, 0x100, ~std::uint64_t{0}), 0U);
  EXPECT_FALSE(device.vmcoreinfo()) << "wraps";
}

TEST_F(FwCfgGuest, DmaReadsInPiecesAndPastTheEnd) {
  EXPECT_EQ(dma(select_bits(0x19) | kRead, 4, kBuffer), 0U);
  EXPECT_EQ(buffer(4), (std::string{"\0\0\0\1", 4}));
  EXPECT_EQ(dma(kSkip, 8, 0), 0U);
  EXPECT_EQ(dma(kRead, 14, kBuffer), 0U);
  EXPECT_EQ(buffer(14), "etc/vmcoreinfo");
  put(std::string(64, 'x'));
  EXPECT_EQ(dma(kRead, 64, kBuffer), 0U);
  EXPECT_EQ(buffer(64), std::string(64, '\0'));
  EXPECT_EQ(dma(select_bits(0x00) | kRead, 4, kBuffer), 0U);
  EXPECT_EQ(buffer(4), "QEMU");
}

TEST_F(FwCfgGuest, SelectorsThatNobodyKnowsAreEmpty) {
  for (unsigned key = 0; key <= 0xffff; ++key) {
    const auto plain = key & ~0x4000U;
    if (plain == 0 || plain == 1 || plain == 0x19 || plain == 0x20) {
      continue;
    }
    select(static_cast<std::uint16_t>(key));
    ASSERT_EQ(read_data(2), (std::string{"\0\0", 2})) << key;
    ASSERT_EQ(dma(select_bits(static_cast<std::uint16_t>(key)) | kWrite, 4, kBuffer), kError) << key;
  }
  select(0x4000);
  EXPECT_EQ(read_data(4), "QEMU") << "with the old hint that it will be written";
}

TEST_F(FwCfgGuest, NothingButTheFileIsWrittenAndNotBeyondItsEnd) {
  put(std::string(64, '\xff'));
  for (const std::uint16_t key : std::array<std::uint16_t, 3>{0x00, 0x01, 0x19}) {
    EXPECT_EQ(dma(select_bits(key) | kWrite, 1, kBuffer), kError) << key;
    EXPECT_EQ(dma(select_bits(key) | kWrite, 0, kBuffer), kError) << key;
  }
  EXPECT_EQ(dma(select_bits(0x20) | kWrite, 17, kBuffer), kError);
  EXPECT_EQ(dma(select_bits(0x20) | kWrite, 0xffff'ffff, kBuffer), kError);
  EXPECT_EQ(dma(select_bits(0x20) | kSkip, 16, 0), 0U);
  EXPECT_EQ(dma(kWrite, 1, kBuffer), kError);
  EXPECT_EQ(dma(kSkip, 0xffff'ffff, 0), 0U);
  EXPECT_EQ(dma(kWrite, 1, kBuffer), kError);
  EXPECT_EQ(dma(kWrite, 0, kBuffer), kError);
  EXPECT_EQ(dma(select_bits(0x20) | kSkip, 15, 0), 0U);
  EXPECT_EQ(dma(kWrite, 2, kBuffer), kError);
  select(0x20);
  EXPECT_EQ(read_data(16), (std::string{"\1"} + std::string(15, '\0'))) << "as it was";
  EXPECT_EQ(dma(select_bits(0x20) | kSkip, 15, 0), 0U);
  EXPECT_EQ(dma(kWrite, 1, kBuffer), 0U);
  EXPECT_EQ(dma(kWrite, 0, kBuffer), 0U) << "nothing, at its end";
}

TEST_F(FwCfgGuest, DmaToWhereThereIsNoRamFails) {
  for (const std::uint64_t address :
       {kRam - 3, kRam, std::uint64_t{0xfec0'0000}, ~std::uint64_t{0}, ~std::uint64_t{0} - 3}) {
    EXPECT_EQ(dma(select_bits(0) | kRead, 4, address), kError) << address;
    EXPECT_EQ(dma(select_bits(0x20) | kWrite, 4, address), kError) << address;
  }
  EXPECT_EQ(dma(select_bits(0) | kRead, 0, ~std::uint64_t{0}), 0U) << "no bytes at all";
  EXPECT_EQ(dma(select_bits(0) | kRead, 0xffff'ffff, 0), kError);
  EXPECT_EQ(dma(select_bits(0) | kRead, kRam, 0), kError) << "longer than any item, and by far";
  EXPECT_EQ(dma(select_bits(0) | kRead, 4, kRam - 4), 0U);
}

TEST_F(FwCfgGuest, AnAccessWithoutRamIsNone) {
  const auto before = buffer(64);
  for (const std::uint64_t access : {kRam - 15, kRam, ~std::uint64_t{0}, ~std::uint64_t{0} - 15}) {
    start(access);
  }
  EXPECT_EQ(buffer(64), before);
  EXPECT_EQ(dma(select_bits(0) | kRead, 4, kBuffer), 0U) << "and the upper half is no longer there";
}

TEST_F(FwCfgGuest, AnAccessMayWriteOverItself) {
  EXPECT_EQ(dma(select_bits(0x19) | kRead, 16, kAccess), 0U);
  EXPECT_EQ(dma(select_bits(0x20) | kWrite, 16, kAccess), 0U);
  EXPECT_EQ(dma(0, 0xffff'ffff, ~std::uint64_t{0}), 0U) << "nothing to do";
  EXPECT_EQ(dma(0xffff'ffff, 4, kBuffer), 0U) << "everything at once: it reads";
}

TEST_F(FwCfgGuest, AccessesOfOtherWidthsDoNothing) {
  select(0);
  out(0, std::uint8_t{0x19});
  out(0, std::uint32_t{0x19});
  out(1, std::uint8_t{0x19});
  out(1, std::uint16_t{0x19});
  out(2, std::uint16_t{0x19});
  for (std::uint64_t offset = 4; offset < 12; ++offset) {
    out(offset, std::uint8_t{0x19});
  }
  EXPECT_EQ(in<std::uint16_t>(0), 0U);
  EXPECT_EQ(in<std::uint16_t>(1), 0U);
  EXPECT_EQ(in<std::uint32_t>(0), 0U);
  EXPECT_EQ(in<std::uint32_t>(2), 0x4551'0000U);
  EXPECT_EQ(in<std::uint64_t>(6), 0x4746'4320'554dU) << "the register's end";
  EXPECT_EQ(read_data(4), "QEMU");
}

TEST_F(FwCfgGuest, ManyCpusAtOnce) {
  std::vector<std::thread> cpus;
  for (unsigned i = 0; i < 4; ++i) {
    cpus.emplace_back([this, i] {
      for (unsigned round = 0; round < 500; ++round) {
        select(static_cast<std::uint16_t>(i % 2 == 0 ? 0x20 : 0x19));
        (void)read_data(3);
        start(kAccess + std::uint64_t{0x100} * i);
        (void)device.vmcoreinfo();
      }
    });
  }
  for (auto& cpu : cpus) {
    cpu.join();
  }
  EXPECT_EQ(announce(1, 1, 1), 0U);
}

}  // namespace
}  // namespace martlet
