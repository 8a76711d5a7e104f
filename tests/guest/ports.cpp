// Port I/O of 1, 2 and 4 bytes and string I/O, both directions, against registers whose answer is known:
// the UART's scratch register, the UART in loopback (what goes out comes back in), the RTC's NVRAM.
#include "check.h"
#include "pvh.h"

namespace {

using namespace guest;

constexpr u16 kScratch = kCom1 + kUartScratch;
constexpr u16 kUnclaimed = 0x2e0;
constexpr u16 kRtcIndex = 0x70;
constexpr u16 kRtcData = 0x71;
constexpr u8 kNvram = 0x50;  // first of some bytes that mean nothing to anyone

u8 nvram(u8 index) {
  out8(kRtcIndex, index);
  return in8(kRtcData);
}

void loopback(bool on) {
  while ((uart_read(kUartLineStatus) & kTransmitterEmpty) == 0) {
  }
  uart_write(kUartModemControl, on ? kModemReady | kModemLoopback : kModemReady);
  uart_write(kUartInterruptId, kFifoEnable | kFifoClear);
}

void bytes() {
  for (u32 value = 0; value < 256; value += 5) {
    out8(kScratch, static_cast<u8>(value));
    check_equal(in8(kScratch), value, "a byte out and in");
  }
}

void wider_accesses_reach_neighbouring_registers() {
  out8(kScratch, 0xa5);
  check_equal(in16(kScratch - 1) >> 8U, 0xa5, "the high byte of a word read");
  check_equal(in32(kScratch - 3) >> 24U, 0xa5, "the highest byte of a long read");
  check_equal(in32(kScratch - 3) & 0xffU, kModemReady, "the lowest byte of a long read");
  out16(kRtcIndex, static_cast<u16>(0x3c00U | kNvram));
  check_equal(in8(kRtcData), 0x3c, "a word written to index and data");
  out32(kScratch - 3, (0x5aU << 24U) | kModemReady);
  check_equal(in8(kScratch), 0x5a, "the highest byte of a long written");
}

void strings_out() {
  const u8 three[] = {1, 2, 3};
  outs(kScratch, three, 3);
  check_equal(in8(kScratch), 3, "the last of three bytes out");
  outs_backwards(kScratch, three + 2, 3);
  check_equal(in8(kScratch), 1, "the last of three bytes out, backwards");
  outs(kScratch, three + 1, 0);
  check_equal(in8(kScratch), 1, "no byte out at all");

  u16 pairs[8];
  for (u32 i = 0; i < 8; ++i) {
    pairs[i] = static_cast<u16>(((0x90U + 7 * i) << 8U) | (kNvram + i));
  }
  outs(kRtcIndex, pairs, 8);
  for (u32 i = 0; i < 8; ++i) {
    check_equal(nvram(static_cast<u8>(kNvram + i)), 0x90 + 7 * i, "one of eight words out");
  }

  const char text[] = "every byte of a string, in order\n";
  outs(kCom1, reinterpret_cast<const u8*>(text), sizeof text - 1);
}

void strings_in() {
  u8 same[5] = {};
  out8(kScratch, 0x77);
  ins(kScratch, same, 5);
  for (const u8 byte : same) {
    check_equal(byte, 0x77, "one of five bytes in");
  }
  u8 sixteen[16];
  for (u32 i = 0; i < 16; ++i) {
    sixteen[i] = static_cast<u8>(3 * i + 1);
  }

  loopback(true);
  outs(kCom1, sixteen, 16);
  u8 back[16] = {};
  ins(kCom1, back, 16);
  for (u32 i = 0; i < 16; ++i) {
    check_equal(back[i], sixteen[i], "one of sixteen bytes out and in through the loop");
  }

  outs(kCom1, sixteen, 8);
  ins_backwards(kCom1, back + 7, 8);
  for (u32 i = 0; i < 8; ++i) {
    check_equal(back[7 - i], sixteen[i], "one of eight bytes in, backwards");
  }

  outs(kCom1, sixteen, 8);
  u16 words[8] = {};
  ins(kCom1, words, 8);  // data and interrupt enable
  for (u32 i = 0; i < 8; ++i) {
    check_equal(words[i], sixteen[i], "one of eight words in");
  }

  u32 longs[8];
  for (u32 i = 0; i < 8; ++i) {  // data, interrupt enable, FIFO control, line control
    longs[i] = sixteen[i] | (u32{kFifoEnable} << 16U) | (u32{kEightBits} << 24U);
  }
  outs(kCom1, longs, 8);
  u32 longs_back[8] = {};
  ins(kCom1, longs_back, 8);
  for (u32 i = 0; i < 8; ++i) {
    check_equal(longs_back[i] & 0xffU, sixteen[i], "one of eight longs out and in");
    check_equal(longs_back[i] >> 24U, kEightBits, "line control in each long");
  }
  loopback(false);
}

void nobody_answers() {
  check_equal(in8(kUnclaimed), 0xff, "a byte of an unclaimed port");
  check_equal(in16(kUnclaimed), 0xffff, "a word of an unclaimed port");
  check_equal(in32(kUnclaimed), 0xffffffff, "a long of an unclaimed port");
  out8(kUnclaimed, 1);
  out16(kUnclaimed, 2);
  out32(kUnclaimed, 3);
  u32 longs[4] = {};
  ins(kUnclaimed, longs, 4);
  for (const u32 value : longs) {
    check_equal(value, 0xffffffff, "one of four longs of an unclaimed port");
  }
  outs(kUnclaimed, longs, 4);
  check_equal(in32(kUnclaimed), 0xffffffff, "an unclaimed port, written to");
}

/// More than fits into the page that KVM passes string I/O in.
void a_long_string() {
  static u8 many[10000];
  for (u32 i = 0; i < sizeof many; ++i) {
    many[i] = static_cast<u8>(i % 80 == 79 ? '\n' : 'a' + i % 26);
  }
  outs(kCom1, many, sizeof many);
  out8(kScratch, 0x42);
  for (auto& byte : many) {
    byte = 0;
  }
  ins(kScratch, many, sizeof many);
  u32 wrong = 0;
  for (const u8 byte : many) {
    wrong += byte == 0x42 ? 0 : 1;
  }
  check_equal(wrong, 0, "wrong bytes of 10,000 in");
}

}  // namespace

int guest_main(const HvmStartInfo& /*info*/) {
  bytes();
  wider_accesses_reach_neighbouring_registers();
  strings_out();
  strings_in();
  nobody_answers();
  a_long_string();
  print("\nports done\n");
  return verdict();
}
