#pragma once

#include <array>
#include <cstdint>
#include <mutex>
#include <optional>

#include "devices/serial_port.h"
#include "vmm/base/bus.h"
#include "vmm/base/irq_line.h"

namespace martlet {

/// A 16550A UART (National Semiconductor, PC16550D data sheet) on an infinitely fast line: what the
/// guest sends is gone at once, so THRE and TEMT always read 1; a character below the FIFO's trigger
/// level has already waited out the four character times of the time-out interrupt.
///
/// Its interrupt pin is not gated by OUT2. A PC gates it, QEMU does not; Linux sets OUT2 anyway, and
/// tiny guests that forget it work.
///
/// Input is never lost to a guest that is not listening yet: it waits at the host until the guest
/// raises RTS, enables the receive interrupt, or polls. (Linux empties the FIFO while it probes and
/// each time it opens the port.) Once a guest has used RTS, RTS is its flow control.
class Uart16550 final : public ByteDevice, public SerialDevice {
 public:
  static constexpr std::uint8_t kFifoSize = 16;

  /// All that a guest can see or change.
  struct State {
    std::array<std::uint8_t, kFifoSize> fifo{};  ///< received characters, a ring
    std::uint16_t breaks = 0;                    ///< bit n: fifo[n] is a BREAK that LSR has not shown yet
    std::uint8_t first = 0;                      ///< the oldest character's place
    std::uint8_t count = 0;
    std::uint8_t interrupt_enable = 0;
    std::uint8_t fifo_control = 0;
    std::uint8_t line_control = 0;
    std::uint8_t modem_control = 0;
    std::uint8_t modem_status = 0xb0;  ///< CTS, DSR, DCD: somebody is there and ready
    std::uint8_t scratch = 0;
    std::uint16_t divisor = 1;  ///< 115200 baud
    std::uint8_t polls = 0;     ///< LSR reads with nothing else between them, up to "it polls"
    bool overrun = false;
    bool thr_emptied = false;   ///< a THRE interrupt is due, if enabled
    bool in_burst = false;      ///< THR was written since the guest last looked at IIR or LSR
    bool used_rts = false;      ///< the guest has raised RTS: it means something
    bool interrupting = false;  ///< level of the interrupt pin
  };

  /// Both outlive this.
  Uart16550(const IrqLine& irq, SerialHost& host) : irq_{irq}, host_{host} {}

  [[nodiscard]] std::size_t room() noexcept override;
  [[nodiscard]] std::size_t receive(std::span<const std::byte> bytes) noexcept override;

  /// A BREAK on the line: Linux' serial console takes it for the sysrq key. Arrives even when nobody
  /// listens; into a full FIFO it is lost as an overrun.
  void receive_break() noexcept;

  /// A copy, for tests and snapshots.
  [[nodiscard]] State state() const noexcept;

 private:
  enum class InterruptId : std::uint8_t;
  struct Effects {  // what is left to do once the lock is released
    std::optional<std::byte> sent;
    bool raise = false;
    bool room = false;
  };

  std::uint8_t read_register(std::uint64_t offset) noexcept override;
  void write_register(std::uint64_t offset, std::uint8_t value) noexcept override;
  void settle(Effects& effects) noexcept;
  void perform(const Effects& effects) const noexcept;

  [[nodiscard]] std::uint8_t capacity() const noexcept;
  [[nodiscard]] std::uint8_t trigger_level() const noexcept;
  [[nodiscard]] bool listens() const noexcept;
  [[nodiscard]] bool break_shows() const noexcept;
  [[nodiscard]] InterruptId pending() const noexcept;
  void push(std::uint8_t character, bool is_break) noexcept;
  void clear_receiver() noexcept;
  void transmit(std::uint8_t character, Effects& effects) noexcept;
  std::uint8_t read_received() noexcept;
  std::uint8_t read_interrupt_id() noexcept;
  std::uint8_t read_line_status() noexcept;
  void write_interrupt_enable(std::uint8_t value) noexcept;
  void write_fifo_control(std::uint8_t value) noexcept;
  void write_line_control(std::uint8_t value) noexcept;
  void write_modem_control(std::uint8_t value) noexcept;

  const IrqLine& irq_;
  SerialHost& host_;
  mutable std::mutex mutex_;
  State state_;
  bool refused_ = false;  // the host waits for has_room()
};

}  // namespace martlet
