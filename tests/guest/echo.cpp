// Sends back what it receives, until end of transmission (Ctrl-D); the exit code counts the bytes before
// that. by=poll (the default) or by=interrupt: through IO-APIC pin 4, asleep in between.
#include "acpi.h"
#include "apic.h"
#include "args.h"
#include "idt.h"
#include "pvh.h"
#include "uart.h"

namespace {

using namespace guest;

constexpr u8 kSerialIrq = 4;
constexpr u8 kSerialVector = 0x24;
constexpr u8 kEndOfTransmission = 4;

volatile int received = 0;
volatile bool ended = false;

void take_all() {
  while ((uart_read(kUartLineStatus) & kDataReady) != 0 && !ended) {
    const u8 byte = uart_read(kUartData);
    if (byte == kEndOfTransmission) {
      ended = true;
    } else {
      received = received + 1;  // first: whoever sees the byte may look how many there were
      print(static_cast<char>(byte));
    }
  }
}

void on_serial_interrupt(Frame& /*frame*/) {
  // An edge each time the UART has something new to say: all of it is looked at before leaving.
  constexpr u8 kNothingPending = 1;
  while ((uart_read(kUartInterruptId) & kNothingPending) == 0 && !ended) {
    take_all();
  }
  LocalApic::end_of_interrupt();
}

}  // namespace

int guest_main(const HvmStartInfo& info) {
  if (word_is("by", "interrupt")) {
    silence_pics();
    LocalApic::enable(false);
    set_handler(kSerialVector, on_serial_interrupt);
    IoApic{io_apic_address(info)}.route(gsi_of_isa(info, kSerialIrq), kSerialVector, static_cast<u8>(LocalApic::id()));
    uart_write(kUartInterruptEnable, kReceivedInterrupt);
    print("ready\n");
    while (!ended) {
      wait_for_interrupt();
    }
  } else {
    print("ready\n");
    while (!ended) {
      take_all();
    }
  }
  print("\n");
  return received;
}
