#include "devices/uart16550.h"

#include <algorithm>
#include <utility>

namespace martlet {
namespace {

// PC16550D data sheet, table II: the registers and their bits.
enum class Register : std::uint8_t {
  Data = 0,             // RBR, THR; with DLAB the divisor's low byte
  InterruptEnable = 1,  // IER; with DLAB the divisor's high byte
  InterruptId = 2,      // read IIR, write FCR
  LineControl = 3,
  ModemControl = 4,
  LineStatus = 5,
  ModemStatus = 6,
  Scratch = 7,
};
constexpr std::uint64_t kRegisterMask = 7;

struct Ier {
  static constexpr std::uint8_t kReceived = 0x01;
  static constexpr std::uint8_t kThrEmpty = 0x02;
  static constexpr std::uint8_t kLineStatus = 0x04;
  static constexpr std::uint8_t kModemStatus = 0x08;
  static constexpr std::uint8_t kAll = 0x0f;
};
struct Fcr {
  static constexpr std::uint8_t kEnable = 0x01;
  static constexpr std::uint8_t kClearReceiver = 0x02;
  static constexpr std::uint8_t kTriggerShift = 6;
};
struct Iir {
  static constexpr std::uint8_t kFifosEnabled = 0xc0;
};
struct Lcr {
  static constexpr std::uint8_t kSendBreak = 0x40;
  static constexpr std::uint8_t kDivisorAccess = 0x80;
};
struct Mcr {
  static constexpr std::uint8_t kDtr = 0x01;
  static constexpr std::uint8_t kRts = 0x02;
  static constexpr std::uint8_t kOut1 = 0x04;
  static constexpr std::uint8_t kOut2 = 0x08;
  static constexpr std::uint8_t kLoopback = 0x10;
  static constexpr std::uint8_t kAll = 0x1f;
};
struct Lsr {
  static constexpr std::uint8_t kDataReady = 0x01;
  static constexpr std::uint8_t kOverrun = 0x02;
  static constexpr std::uint8_t kBreak = 0x10;
  static constexpr std::uint8_t kThrEmpty = 0x20;
  static constexpr std::uint8_t kTransmitterEmpty = 0x40;
  static constexpr std::uint8_t kErrorInFifo = 0x80;
};
struct Msr {
  static constexpr std::uint8_t kRingEnded = 0x04;
  static constexpr std::uint8_t kCts = 0x10;
  static constexpr std::uint8_t kDsr = 0x20;
  static constexpr std::uint8_t kRing = 0x40;
  static constexpr std::uint8_t kCarrier = 0x80;
  static constexpr std::uint8_t kLines = 0xf0;
  static constexpr std::uint8_t kDeltas = 0x0f;
  static constexpr std::uint8_t kDeltaShift = 4;
};

// So many reads of LSR with no other register between them: the guest polls for input. Linux'
// console never does that, for its first look at LSR already finds the transmitter empty.
constexpr std::uint8_t kPollingReads = 64;

constexpr std::uint8_t low_byte(std::uint16_t value) { return static_cast<std::uint8_t>(value & 0xffU); }
constexpr std::uint8_t high_byte(std::uint16_t value) { return static_cast<std::uint8_t>(value >> 8U); }
constexpr std::uint16_t bit(unsigned place) { return static_cast<std::uint16_t>(1U << place); }

/// The modem's lines as MSR shows them: in loopback the chip's own outputs, else a modem that is there.
constexpr std::uint8_t modem_lines(std::uint8_t control) {
  if ((control & Mcr::kLoopback) == 0) {
    return Msr::kCts | Msr::kDsr | Msr::kCarrier;
  }
  unsigned lines = 0;
  lines |= (control & Mcr::kRts) != 0 ? Msr::kCts : 0U;
  lines |= (control & Mcr::kDtr) != 0 ? Msr::kDsr : 0U;
  lines |= (control & Mcr::kOut1) != 0 ? Msr::kRing : 0U;
  lines |= (control & Mcr::kOut2) != 0 ? Msr::kCarrier : 0U;
  return static_cast<std::uint8_t>(lines);
}

}  // namespace

// Table IV, the highest priority first.
enum class Uart16550::InterruptId : std::uint8_t {
  LineStatus = 0x06,
  Received = 0x04,
  ReceiveTimeout = 0x0c,
  ThrEmpty = 0x02,
  ModemStatus = 0x00,
  None = 0x01,
};

std::uint8_t Uart16550::read_register(std::uint64_t offset) noexcept {
  const auto reg = Register{static_cast<std::uint8_t>(offset & kRegisterMask)};
  std::uint8_t value = 0;
  Effects effects;
  {
    const std::lock_guard lock{mutex_};
    if (reg != Register::LineStatus && state_.polls < kPollingReads) {
      state_.polls = 0;
    }
    const bool divisor = (state_.line_control & Lcr::kDivisorAccess) != 0;
    switch (reg) {
      case Register::Data:
        value = divisor ? low_byte(state_.divisor) : read_received();
        break;
      case Register::InterruptEnable:
        value = divisor ? high_byte(state_.divisor) : state_.interrupt_enable;
        break;
      case Register::InterruptId:
        value = read_interrupt_id();
        break;
      case Register::LineControl:
        value = state_.line_control;
        break;
      case Register::ModemControl:
        value = state_.modem_control;
        break;
      case Register::LineStatus:
        value = read_line_status();
        break;
      case Register::ModemStatus:
        value = std::exchange(state_.modem_status, state_.modem_status & Msr::kLines);
        break;
      case Register::Scratch:
        value = state_.scratch;
        break;
    }
    settle(effects);
  }
  perform(effects);
  return value;
}

void Uart16550::write_register(std::uint64_t offset, std::uint8_t value) noexcept {
  const auto reg = Register{static_cast<std::uint8_t>(offset & kRegisterMask)};
  Effects effects;
  {
    const std::lock_guard lock{mutex_};
    if (state_.polls < kPollingReads) {
      state_.polls = 0;
    }
    const bool divisor = (state_.line_control & Lcr::kDivisorAccess) != 0;
    switch (reg) {
      case Register::Data:
        if (divisor) {
          state_.divisor = static_cast<std::uint16_t>(high_byte(state_.divisor) << 8U | value);
        } else {
          transmit(value, effects);
        }
        break;
      case Register::InterruptEnable:
        if (divisor) {
          state_.divisor = static_cast<std::uint16_t>(value << 8U | low_byte(state_.divisor));
        } else {
          write_interrupt_enable(value);
        }
        break;
      case Register::InterruptId:
        write_fifo_control(value);
        break;
      case Register::LineControl:
        write_line_control(value);
        break;
      case Register::ModemControl:
        write_modem_control(value);
        break;
      case Register::LineStatus:   // read-only here: bit 0 and the errors could be set on the chip,
      case Register::ModemStatus:  // "for factory testing"
        break;
      case Register::Scratch:
        state_.scratch = value;
        break;
    }
    settle(effects);
  }
  perform(effects);
}

std::size_t Uart16550::room() noexcept {
  const std::lock_guard lock{mutex_};
  const std::size_t free = listens() ? static_cast<std::size_t>(capacity() - state_.count) : 0;
  refused_ = refused_ || free == 0;
  return free;
}

std::size_t Uart16550::receive(std::span<const std::byte> bytes) noexcept {
  std::size_t taken = 0;
  Effects effects;
  {
    const std::lock_guard lock{mutex_};
    for (; taken < bytes.size() && listens() && state_.count < capacity(); ++taken) {
      push(std::to_integer<std::uint8_t>(bytes[taken]), false);
    }
    refused_ = taken < bytes.size();
    settle(effects);
  }
  perform(effects);
  return taken;
}

void Uart16550::receive_break() noexcept {
  Effects effects;
  {
    const std::lock_guard lock{mutex_};
    if ((state_.modem_control & Mcr::kLoopback) == 0) {  // in loopback the receiver is off the line
      push(0, true);
    }
    settle(effects);
  }
  perform(effects);
}

Uart16550::State Uart16550::state() const noexcept {
  const std::lock_guard lock{mutex_};
  return state_;
}

/// After each change: does the pin rise, may the host offer more?
void Uart16550::settle(Effects& effects) noexcept {
  const bool now = pending() != InterruptId::None;
  effects.raise = effects.raise || (now && !state_.interrupting);
  state_.interrupting = now;
  // The host waits for an empty FIFO, not for one free place: whole FIFOs cost it a 16th of the wake-ups.
  if (refused_ && state_.count == 0 && listens()) {
    refused_ = false;
    effects.room = true;
  }
}

/// Outside the lock, for these may be system calls. An edge that comes late is a spurious interrupt at worst.
void Uart16550::perform(const Effects& effects) const noexcept {
  if (effects.sent) {
    host_.put(*effects.sent);
  }
  if (effects.raise) {
    irq_.raise();
  }
  if (effects.room) {
    host_.has_room();
  }
}

std::uint8_t Uart16550::capacity() const noexcept { return (state_.fifo_control & Fcr::kEnable) != 0 ? kFifoSize : 1; }

std::uint8_t Uart16550::trigger_level() const noexcept {
  constexpr std::array<std::uint8_t, 4> kLevels{1, 4, 8, 14};
  return kLevels[static_cast<std::size_t>(state_.fifo_control >> Fcr::kTriggerShift)];
}

bool Uart16550::listens() const noexcept {
  if ((state_.modem_control & Mcr::kLoopback) != 0) {
    return false;
  }
  if (state_.polls >= kPollingReads) {
    return true;
  }
  if (state_.used_rts) {
    return (state_.modem_control & Mcr::kRts) != 0;
  }
  // All four interrupts at once is how Linux' autoconfig() asks whether an IER is there at all.
  return (state_.interrupt_enable & Ier::kReceived) != 0 && state_.interrupt_enable != Ier::kAll;
}

bool Uart16550::break_shows() const noexcept { return state_.count != 0 && (state_.breaks & bit(state_.first)) != 0; }

Uart16550::InterruptId Uart16550::pending() const noexcept {
  const auto enabled = state_.interrupt_enable;
  if ((enabled & Ier::kLineStatus) != 0 && (state_.overrun || break_shows())) {
    return InterruptId::LineStatus;
  }
  if ((enabled & Ier::kReceived) != 0 && state_.count != 0) {
    return state_.count >= trigger_level() ? InterruptId::Received : InterruptId::ReceiveTimeout;
  }
  if ((enabled & Ier::kThrEmpty) != 0 && state_.thr_emptied) {
    return InterruptId::ThrEmpty;
  }
  if ((enabled & Ier::kModemStatus) != 0 && (state_.modem_status & Msr::kDeltas) != 0) {
    return InterruptId::ModemStatus;
  }
  return InterruptId::None;
}

/// A character arrives. Into a full FIFO: it is lost; without FIFO it replaces the one before (LSR bit 1).
void Uart16550::push(std::uint8_t character, bool is_break) noexcept {
  if (state_.count == capacity()) {
    state_.overrun = true;
    if (capacity() == kFifoSize) {
      return;
    }
    --state_.count;
  }
  const auto place = static_cast<std::uint8_t>((state_.first + state_.count++) % kFifoSize);
  state_.fifo[place] = character;
  state_.breaks = static_cast<std::uint16_t>(is_break ? state_.breaks | bit(place) : state_.breaks & ~bit(place));
}

void Uart16550::clear_receiver() noexcept {
  state_.count = 0;
  state_.breaks = 0;
  state_.polls = 0;  // who clears it starts over and is not listening yet
}

void Uart16550::transmit(std::uint8_t character, Effects& effects) noexcept {
  if ((state_.modem_control & Mcr::kLoopback) != 0) {
    push(character, false);
  } else {
    effects.sent = std::byte{character};
  }
  // A THRE interrupt that was pending ends with this write and comes back as the character leaves: an
  // edge each time. One edge for a whole burst is enough, as for a FIFO that runs empty once; a new
  // burst begins when the guest has looked.
  if (!state_.in_burst) {
    state_.thr_emptied = false;
    settle(effects);
  }
  state_.in_burst = true;
  state_.thr_emptied = true;
}

std::uint8_t Uart16550::read_received() noexcept {
  if (state_.count == 0) {
    return 0;
  }
  const auto character = state_.fifo[state_.first];
  state_.breaks = static_cast<std::uint16_t>(state_.breaks & ~bit(state_.first));
  state_.first = static_cast<std::uint8_t>((state_.first + 1) % kFifoSize);
  --state_.count;
  return character;
}

std::uint8_t Uart16550::read_interrupt_id() noexcept {
  const auto id = pending();
  state_.in_burst = false;
  if (id == InterruptId::ThrEmpty) {
    state_.thr_emptied = false;  // reset by reading IIR "if source of interrupt" (table IV)
  }
  return static_cast<std::uint8_t>(static_cast<unsigned>(id) |
                                   ((state_.fifo_control & Fcr::kEnable) != 0 ? Iir::kFifosEnabled : 0U));
}

std::uint8_t Uart16550::read_line_status() noexcept {
  unsigned status = Lsr::kThrEmpty | Lsr::kTransmitterEmpty;
  status |= state_.count != 0 ? Lsr::kDataReady : 0U;
  status |= state_.overrun ? Lsr::kOverrun : 0U;
  status |= break_shows() ? Lsr::kBreak : 0U;
  status |= state_.breaks != 0 && capacity() == kFifoSize ? Lsr::kErrorInFifo : 0U;
  state_.overrun = false;
  state_.in_burst = false;
  if (break_shows()) {
    state_.breaks = static_cast<std::uint16_t>(state_.breaks & ~bit(state_.first));
  }
  if (state_.polls < kPollingReads) {
    ++state_.polls;
  }
  return static_cast<std::uint8_t>(status);
}

void Uart16550::write_interrupt_enable(std::uint8_t value) noexcept {
  const auto enabled = static_cast<std::uint8_t>(value & Ier::kAll & ~state_.interrupt_enable);
  state_.interrupt_enable = value & Ier::kAll;
  // THR is empty, so enabling its interrupt raises it at once, each time. Linux tests for that
  // (serial8250_do_startup) and works around a UART that does not.
  if ((enabled & Ier::kThrEmpty) != 0) {
    state_.thr_emptied = true;
  }
}

void Uart16550::write_fifo_control(std::uint8_t value) noexcept {
  const bool toggled = ((value ^ state_.fifo_control) & Fcr::kEnable) != 0;
  const bool enable = (value & Fcr::kEnable) != 0;
  if (toggled || (enable && (value & Fcr::kClearReceiver) != 0)) {
    clear_receiver();
  }
  // "Bit 0 must be a 1 when other FCR bits are written to or they will not be programmed". Without
  // FIFO the trigger level is 1. DMA mode has no effect, the clear bits clear themselves.
  state_.fifo_control = enable ? static_cast<std::uint8_t>(value & (Fcr::kEnable | 3U << Fcr::kTriggerShift)) : 0;
}

void Uart16550::write_line_control(std::uint8_t value) noexcept {
  const bool breaks = (value & ~state_.line_control & Lcr::kSendBreak) != 0;
  state_.line_control = value;  // word length, parity and stop bits do not matter to a line without bits
  if (breaks && (state_.modem_control & Mcr::kLoopback) != 0) {
    push(0, true);
  }
}

void Uart16550::write_modem_control(std::uint8_t value) noexcept {
  state_.modem_control = value & Mcr::kAll;
  state_.used_rts = state_.used_rts || (value & (Mcr::kLoopback | Mcr::kRts)) == Mcr::kRts;
  const auto lines = modem_lines(state_.modem_control);
  const unsigned changed = (lines ^ state_.modem_status) & Msr::kLines;
  unsigned deltas = changed >> Msr::kDeltaShift;
  if ((lines & Msr::kRing) != 0) {
    deltas &= static_cast<unsigned>(~Msr::kRingEnded);  // TERI tells only of a ring that ends
  }
  state_.modem_status = static_cast<std::uint8_t>(lines | (state_.modem_status & Msr::kDeltas) | deltas);
}

}  // namespace martlet
