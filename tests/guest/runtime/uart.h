#pragma once
// The first serial port, polled: print("pin ", 4, " is ", Hex{value}, "\n").

#include "io.h"

namespace guest {

inline constexpr u16 kCom1 = 0x3f8;

// PC16550D data sheet, table II: offsets from kCom1.
enum UartRegister : u16 {
  kUartData = 0,
  kUartInterruptEnable = 1,
  kUartInterruptId = 2,  // FIFO control when written
  kUartLineControl = 3,
  kUartModemControl = 4,
  kUartLineStatus = 5,
  kUartModemStatus = 6,
  kUartScratch = 7,
};
inline constexpr u8 kDataReady = 0x01;  // line status
inline constexpr u8 kTransmitterEmpty = 0x20;
inline constexpr u8 kEightBits = 0x03;  // line control
inline constexpr u8 kDivisorAccess = 0x80;
inline constexpr u8 kFifoEnable = 0x01;  // FIFO control
inline constexpr u8 kFifoClear = 0x06;
inline constexpr u8 kModemReady = 0x0b;  // modem control: DTR, RTS, OUT2 (the interrupt line's gate)
inline constexpr u8 kModemLoopback = 0x10;
inline constexpr u8 kReceivedInterrupt = 0x01;  // interrupt enable

inline u8 uart_read(UartRegister reg) { return in8(static_cast<u16>(kCom1 + reg)); }
inline void uart_write(UartRegister reg, u8 value) { out8(static_cast<u16>(kCom1 + reg), value); }

/// 115,200 baud, 8N1, FIFOs on and empty, no interrupts.
inline void uart_setup() {
  uart_write(kUartInterruptEnable, 0);
  uart_write(kUartLineControl, kDivisorAccess);
  uart_write(kUartData, 1);
  uart_write(kUartInterruptEnable, 0);
  uart_write(kUartLineControl, kEightBits);
  uart_write(kUartInterruptId, kFifoEnable | kFifoClear);
  uart_write(kUartModemControl, kModemReady);
}

inline void print_one(char character) {
  while ((uart_read(kUartLineStatus) & kTransmitterEmpty) == 0) {
  }
  uart_write(kUartData, static_cast<u8>(character));
}
inline void print_one(const char* text) {
  while (*text != '\0') {
    print_one(*text++);
  }
}
inline void print_one(u64 number) {
  char digits[20];
  int count = 0;
  do {
    digits[count++] = static_cast<char>('0' + number % 10);
    number /= 10;
  } while (number != 0);
  while (count > 0) {
    print_one(digits[--count]);
  }
}
inline void print_one(u32 number) { print_one(u64{number}); }
inline void print_one(int number) {
  if (number < 0) {
    print_one('-');
  }
  print_one(static_cast<u64>(number < 0 ? -static_cast<long>(number) : number));
}

struct Hex {
  u64 value;
};
inline void print_one(Hex number) {
  print_one("0x");
  int shift = 60;
  while (shift > 0 && (number.value >> static_cast<unsigned>(shift)) == 0) {
    shift -= 4;
  }
  for (; shift >= 0; shift -= 4) {
    print_one("0123456789abcdef"[(number.value >> static_cast<unsigned>(shift)) & 0xfU]);
  }
}
/// Two digits at least: 07.
struct TwoDigits {
  u32 value;
};
inline void print_one(TwoDigits number) {
  if (number.value < 10) {
    print_one('0');
  }
  print_one(number.value);
}

template <class... Parts>
void print(Parts... parts) {
  (print_one(parts), ...);
}

}  // namespace guest
