#include "devices/uart16550.h"

#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace martlet {
namespace {

// Linux' names (include/uapi/linux/serial_reg.h), so that the scripts below read like its driver.
enum Port : std::uint64_t {
  RX = 0,
  TX = 0,
  DLL = 0,
  IER = 1,
  DLM = 1,
  IIR = 2,
  FCR = 2,
  LCR = 3,
  MCR = 4,
  LSR = 5,
  MSR = 6,
  SCR = 7
};
constexpr unsigned kNoInt = 0x01, kRls = 0x06, kRda = 0x04, kTimeout = 0x0c, kThre = 0x02, kMs = 0x00;
constexpr unsigned kIdMask = 0x0f;
constexpr unsigned kIerRdi = 1, kIerThri = 2, kIerRlsi = 4, kIerMsi = 8;
constexpr unsigned kLsrDr = 1, kLsrOe = 2, kLsrBi = 0x10, kLsrEmpty = 0x60, kLsrFifoError = 0x80;
constexpr unsigned kMcrLoop = 0x10, kMcrRts = 2, kMcrDtr = 1, kMcrOut2 = 8;
constexpr unsigned kFcrEnable = 1, kFcrClear = 6;

std::span<const std::byte> bytes_of(std::string_view text) { return std::as_bytes(std::span{text}); }

struct Host final : SerialHost {
  void put(std::byte byte) noexcept override { sent.push_back(std::to_integer<char>(byte)); }
  void has_room() noexcept override { ++rooms; }
  std::string sent;
  int rooms = 0;
};

struct Uart : ::testing::Test {
  unsigned in(Port port) {
    std::byte value{};
    uart.read(port, {&value, 1});
    return std::to_integer<unsigned>(value);
  }
  void out(Port port, unsigned value) {
    const auto byte = static_cast<std::byte>(value);
    uart.write(port, {&byte, 1});
  }
  /// How often the line rose since the last look.
  std::uint64_t edges() { return drain_counter(irq.fd()); }
  unsigned id() { return in(IIR)&kIdMask; }
  std::size_t receive(std::string_view text) { return uart.receive(bytes_of(text)); }
  /// As after Linux' open(): FIFO with trigger 8, receive interrupts, DTR, RTS, OUT2.
  void open() {
    out(FCR, kFcrEnable | kFcrClear);
    out(FCR, 0x81);
    out(LCR, 3);
    out(IER, kIerRdi | kIerRlsi);
    out(MCR, kMcrDtr | kMcrRts | kMcrOut2);
    edges();
  }
  std::string read_all() {
    std::string text;
    while ((in(LSR)&kLsrDr) != 0) {
      text.push_back(static_cast<char>(in(RX)));
    }
    return text;
  }

  IrqLine irq;
  Host host;
  Uart16550 uart{irq, host};
};

TEST_F(Uart, IsA16550AToLinuxAutoconfig) {
  out(IER, 0);
  EXPECT_EQ(in(IER)&0x0f, 0U);
  out(IER, 0x0f);
  EXPECT_EQ(in(IER), 0x0fU) << "no UUE bit (Xscale), no upper bits";
  out(IER, 0);
  const auto mcr = in(MCR);
  out(MCR, kMcrLoop | 0x0a);
  EXPECT_EQ(in(MSR)&0xf0, 0x90U);
  out(MCR, mcr);
  out(LCR, 0xbf);
  out(FCR, 0);
  out(LCR, 0);
  out(FCR, kFcrEnable);
  EXPECT_EQ(in(IIR) >> 6, 3U);
  // The probes of CONFIG_SERIAL_8250_16550A_VARIANTS find neither an EFR (the divisor is not 0) ...
  out(LCR, 0x80);
  EXPECT_EQ(in(DLL), 1U);
  out(LCR, 0);
  // ... nor the 64-byte FIFO of a TI16750.
  out(FCR, kFcrEnable | 0x20);
  EXPECT_EQ(in(IIR) >> 5, 6U);
  out(LCR, 0x80);
  out(FCR, kFcrEnable | 0x20);
  EXPECT_EQ(in(IIR) >> 5, 6U);
}

TEST_F(Uart, NeedsNoneOfLinuxWorkarounds) {
  open();
  out(IER, 0);
  EXPECT_NE(in(LSR), 0xffU);
  EXPECT_EQ(in(LSR)&kLsrEmpty, kLsrEmpty) << "wait_for_xmitr passes at its first look";
  // UART_BUG_THRE: enabling THRI must assert again, though IIR was read.
  out(IER, kIerThri);
  EXPECT_EQ(id(), kThre);
  out(IER, 0);
  out(IER, kIerThri);
  EXPECT_EQ(id(), kThre);
  out(IER, 0);
  // UART_BUG_TXEN: the same with OUT2 set and LSR read first.
  out(IER, kIerThri);
  EXPECT_NE(in(LSR)&0x40, 0U);
  EXPECT_NE(id(), kNoInt);
  out(IER, 0);
  EXPECT_EQ(id(), kNoInt);
}

TEST_F(Uart, SendsATtyWriteWithOneEdgePerBurst) {
  open();
  const std::string text = "sixteen bytes...sixteen bytes...the rest";
  std::size_t at = 0;
  out(IER, kIerRdi | kIerRlsi | kIerThri);
  while (at < text.size()) {
    EXPECT_EQ(edges(), 1U);
    EXPECT_EQ(id(), kThre);
    EXPECT_EQ(id(), kNoInt) << "reading IIR took it back";
    EXPECT_EQ(in(LSR), kLsrEmpty);
    in(MSR);
    for (int i = 0; i < 16 && at < text.size(); ++i) {
      out(TX, static_cast<unsigned char>(text[at++]));
    }
  }
  out(IER, kIerRdi | kIerRlsi);
  EXPECT_EQ(edges(), 1U) << "from the last burst";
  EXPECT_EQ(id(), kNoInt);
  EXPECT_EQ(host.sent, text);
}

TEST_F(Uart, GivesAnEdgePerBurstToAGuestThatNeverReadsIir) {
  out(IER, kIerThri);
  EXPECT_EQ(edges(), 1U);
  for (int i = 0; i < 5; ++i) {
    in(LSR);
    out(TX, 'x');
    EXPECT_EQ(edges(), 1U);
  }
}

TEST_F(Uart, PollingConsoleWritesRaiseNothing) {
  open();
  for (const char c : std::string{"printk"}) {
    out(IER, 0);
    while ((in(LSR)&kLsrEmpty) != kLsrEmpty) {
    }
    out(TX, static_cast<unsigned char>(c));
    out(IER, kIerRdi | kIerRlsi);
  }
  EXPECT_EQ(edges(), 0U);
  EXPECT_EQ(host.sent, "printk");
}

TEST_F(Uart, ReceivesByTriggerLevelAndTimeout) {
  open();
  EXPECT_EQ(receive("1234567"), 7U);
  EXPECT_EQ(edges(), 1U);
  EXPECT_EQ(id(), kTimeout);
  EXPECT_EQ(receive("8"), 1U);
  EXPECT_EQ(edges(), 0U) << "still high";
  EXPECT_EQ(id(), kRda);
  EXPECT_EQ(in(RX), unsigned{'1'});
  EXPECT_EQ(id(), kTimeout);
  EXPECT_EQ(read_all(), "2345678");
  EXPECT_EQ(id(), kNoInt);
  EXPECT_EQ(in(RX), 0U) << "empty";
  receive("9");
  EXPECT_EQ(edges(), 1U);
  for (const auto& [fcr, level] : {std::pair{0x01U, 1U}, {0x41U, 4U}, {0x81U, 8U}, {0xc1U, 14U}}) {
    out(FCR, fcr | 2);
    for (unsigned i = 1; i <= 16; ++i) {
      receive("x");
      EXPECT_EQ(id(), i < level ? kTimeout : kRda) << level;
    }
  }
}

TEST_F(Uart, RefusesWhatDoesNotFitAndAsksAgainWhenEmpty) {
  open();
  EXPECT_EQ(receive("0123456789abcdefghij"), 16U);
  for (int i = 0; i < 15; ++i) {
    in(RX);
    EXPECT_EQ(host.rooms, 0);
  }
  in(RX);
  EXPECT_EQ(host.rooms, 1);
  EXPECT_EQ(uart.room(), 16U);
  EXPECT_EQ(receive("ghij"), 4U);
  EXPECT_EQ(read_all(), "ghij");
  EXPECT_EQ(host.rooms, 1) << "nobody waits";
  EXPECT_EQ(in(LSR)&kLsrOe, 0U);
}

TEST_F(Uart, HoldsOneByteWithoutFifo) {
  out(MCR, kMcrRts);
  out(IER, kIerRdi);
  EXPECT_EQ(receive("ab"), 1U);
  EXPECT_EQ(in(IIR), kRda) << "no FIFO bits";
  EXPECT_EQ(in(RX), unsigned{'a'});
  EXPECT_EQ(host.rooms, 1);
}

TEST_F(Uart, KeepsInputAtTheHostThroughLinuxProbeAndOpen) {
  EXPECT_EQ(receive("early"), 0U);
  out(IER, 0x0f);  // autoconfig
  EXPECT_EQ(uart.room(), 0U);
  out(IER, 0);
  out(MCR, kMcrLoop | 0x0a);
  EXPECT_EQ(uart.room(), 0U);
  out(MCR, 0);
  for (int i = 0; i < 1000; ++i) {  // boot messages
    in(LSR);
    out(TX, 'x');
  }
  EXPECT_EQ(uart.room(), 0U);
  EXPECT_EQ(host.rooms, 0);
  open();
  EXPECT_EQ(host.rooms, 1);
  EXPECT_EQ(receive("early"), 5U);
  EXPECT_EQ(read_all(), "early");
  // close(): interrupts off, RTS down. Then getty opens it.
  out(IER, 0);
  out(MCR, 0);
  EXPECT_EQ(receive("login"), 0U);
  out(FCR, kFcrEnable | kFcrClear);
  in(RX);
  open();
  EXPECT_EQ(receive("login"), 5U);
}

TEST_F(Uart, RtsIsFlowControl) {
  open();
  EXPECT_GT(uart.room(), 0U);
  out(MCR, kMcrDtr | kMcrOut2);  // stty crtscts, and the reader is behind
  EXPECT_EQ(uart.room(), 0U) << "though receive interrupts are on";
  out(MCR, kMcrDtr | kMcrOut2 | kMcrRts);
  EXPECT_EQ(host.rooms, 1);
}

TEST_F(Uart, ListensToATinyGuestThatOnlyPolls) {
  EXPECT_EQ(receive("hello"), 0U);
  int looks = 0;
  while (host.rooms == 0 && looks < 1000) {
    in(LSR);
    ++looks;
  }
  EXPECT_LE(looks, 100);
  EXPECT_EQ(receive("h"), 1U);
  EXPECT_EQ(in(RX), unsigned{'h'});
  out(TX, 'h');
  EXPECT_EQ(receive("e"), 1U) << "once known to poll, it stays known";
}

TEST_F(Uart, ListensToATinyGuestThatOnlyEnablesTheInterrupt) {
  EXPECT_EQ(receive("hello"), 0U);
  out(IER, kIerRdi);
  EXPECT_EQ(host.rooms, 1);
  EXPECT_EQ(receive("hello"), 1U);
  EXPECT_EQ(edges(), 1U) << "without OUT2";
}

TEST_F(Uart, TellsABreakWhereItStandsInTheFifo) {
  open();
  receive("a");
  uart.receive_break();
  receive("c");
  EXPECT_EQ(in(LSR), kLsrEmpty | kLsrDr | kLsrFifoError) << "not at the top yet";
  EXPECT_EQ(id(), kTimeout);
  EXPECT_EQ(in(RX), unsigned{'a'});
  EXPECT_EQ(id(), kRls);
  EXPECT_EQ(in(LSR), kLsrEmpty | kLsrDr | kLsrBi | kLsrFifoError);
  EXPECT_EQ(in(LSR), kLsrEmpty | kLsrDr) << "told once";
  EXPECT_EQ(in(RX), 0U);
  EXPECT_EQ(in(RX), unsigned{'c'});
}

TEST_F(Uart, LosesABreakIntoAFullFifoAsAnOverrun) {
  open();
  receive("0123456789abcdef");
  uart.receive_break();
  EXPECT_EQ(id(), kRls);
  EXPECT_EQ(in(LSR) & (kLsrOe | kLsrBi), kLsrOe);
  EXPECT_EQ(id(), kRda);
  EXPECT_EQ(read_all(), "0123456789abcdef");
}

TEST_F(Uart, LoopsBack) {
  open();
  in(MSR);
  out(MCR, kMcrLoop | kMcrRts);
  for (int i = 0; i < 17; ++i) {
    out(TX, static_cast<unsigned>('a' + i));
  }
  EXPECT_EQ(host.sent, "");
  EXPECT_EQ(receive("x"), 0U) << "the receiver is off the line";
  EXPECT_NE(in(LSR)&kLsrOe, 0U);
  EXPECT_EQ(read_all(), "abcdefghijklmnop");
  out(LCR, 0x43);
  EXPECT_NE(in(LSR)&kLsrBi, 0U);
  uart.receive_break();
  EXPECT_EQ(uart.state().count, 1U);
  EXPECT_EQ(host.rooms, 0);
  in(RX);
  out(MCR, kMcrRts);
  EXPECT_EQ(host.rooms, 1);
}

TEST_F(Uart, TellsModemLinesAndTheirChanges) {
  EXPECT_EQ(in(MSR), 0xb0U);
  out(IER, kIerMsi);
  out(MCR, kMcrLoop | 0x04);  // OUT1 is RI; CTS, DSR and DCD fall
  EXPECT_EQ(edges(), 1U);
  EXPECT_EQ(id(), kMs);
  EXPECT_EQ(in(MSR), 0x4bU);
  EXPECT_EQ(in(MSR), 0x40U);
  EXPECT_EQ(id(), kNoInt);
  out(MCR, kMcrLoop);
  EXPECT_EQ(in(MSR), 0x04U) << "ringing has ended";
  out(MCR, 0xff);
  EXPECT_EQ(in(MCR), 0x1fU);
}

TEST_F(Uart, KeepsDivisorAndScratchApartFromData) {
  out(LCR, 0x83);
  out(DLL, 0x34);
  out(DLM, 0x12);
  EXPECT_EQ(in(DLL), 0x34U);
  EXPECT_EQ(in(DLM), 0x12U);
  EXPECT_EQ(uart.state().divisor, 0x1234);
  out(LCR, 3);
  EXPECT_EQ(in(IER), 0U);
  EXPECT_EQ(in(RX), 0U);
  EXPECT_EQ(host.sent, "");
  out(SCR, 0xa5);
  EXPECT_EQ(in(SCR), 0xa5U);
}

TEST_F(Uart, FcrCountsOnlyWithItsEnableBit) {
  open();
  receive("abc");
  out(FCR, 0x80 | kFcrEnable);
  EXPECT_EQ(read_all(), "abc") << "written again, nothing cleared";
  receive("abc");
  out(FCR, 0xc6);
  EXPECT_EQ(uart.state().count, 0) << "disabling clears";
  EXPECT_EQ(uart.state().fifo_control, 0);
  EXPECT_EQ(in(IIR) >> 6, 0U);
}

TEST_F(Uart, WideAccessesReachTheNeighbours) {
  std::array<std::byte, 4> wide{};
  out(SCR, 0x5a);
  uart.read(4, wide);
  EXPECT_EQ(std::to_integer<unsigned>(wide[1]), kLsrEmpty);
  EXPECT_EQ(std::to_integer<unsigned>(wide[3]), 0x5aU);
  const std::array<std::byte, 2> both{std::byte{'x'}, std::byte{0}};
  uart.write(0, both);
  EXPECT_EQ(host.sent, "x");
}

/// What must hold whatever a guest has done.
void expect_sane(const Uart16550::State& state) {
  ASSERT_LT(state.first, Uart16550::kFifoSize);
  ASSERT_LE(state.count, (state.fifo_control & 1) != 0 ? Uart16550::kFifoSize : 1);
  ASSERT_EQ(state.interrupt_enable & 0xf0, 0);
  ASSERT_EQ(state.modem_control & 0xe0, 0);
}

TEST(UartHostile, EveryRegisterTimesEveryValueInManyStates) {
  std::mt19937 random{1};
  for (int round = 0; round < 40; ++round) {
    IrqLine irq;
    Host host;
    Uart16550 uart{irq, host};
    for (unsigned step = 0; step < 8U * 256U; ++step) {
      const auto value = static_cast<std::byte>(round == 0 ? step / 8 : random());
      const auto port = round == 0 ? step % 8 : random() % 8;
      uart.write(port, {&value, 1});
      std::array<std::byte, 8> all;
      uart.read(0, std::span{all}.first(1U << random() % 4));
      if (random() % 4 == 0) {
        static_cast<void>(uart.receive(bytes_of(std::string_view{"0123456789abcdef0123"}.substr(random() % 20))));
      }
      if (random() % 8 == 0) {
        uart.receive_break();
      }
      const auto state = uart.state();
      expect_sane(state);
      // The edge came if and only if the condition did: the pin's level is what IIR says.
      std::byte iir{};
      uart.read(IIR, {&iir, 1});
      ASSERT_EQ((std::to_integer<unsigned>(iir) & kNoInt) == 0, state.interrupting);
    }
  }
}

TEST(UartHostile, ThreadsOnAllSides) {
  struct CountingHost final : SerialHost {
    void put(std::byte) noexcept override { ++sent; }
    void has_room() noexcept override { ++rooms; }
    std::atomic<int> sent = 0;
    std::atomic<int> rooms = 0;
  };
  IrqLine irq;
  CountingHost host;
  Uart16550 uart{irq, host};
  std::atomic<bool> stop = false;
  std::vector<std::jthread> threads;
  for (unsigned seed = 0; seed < 3; ++seed) {
    threads.emplace_back([&, seed] {
      std::mt19937 random{seed};
      for (int i = 0; i < 20000; ++i) {
        auto value = static_cast<std::byte>(random());
        uart.write(random() % 8, {&value, 1});
        uart.read(random() % 8, {&value, 1});
      }
      stop = true;
    });
  }
  while (!stop) {
    static_cast<void>(uart.receive(bytes_of("some input")));
    uart.receive_break();
    expect_sane(uart.state());
  }
}

}  // namespace
}  // namespace martlet
