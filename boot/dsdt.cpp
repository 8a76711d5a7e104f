#include "boot/dsdt.h"

#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

using namespace aml;
using layout::PortRange;

constexpr std::uint64_t kNotifyPressed = 0x80;      // ACPI 6.5 §5.6.6: device-specific, "S0 power button pressed"
constexpr std::uint64_t kPresentAndWorking = 0x0f;  // _STA, §6.3.7: present, enabled, shown, functioning

Bytes claim(PortRange range) { return ports(range.start, static_cast<std::uint8_t>(range.size)); }

Bytes serial_port() {
  return device("COM1", {name("_HID", eisa_id("PNP0501")),  // 16550A
                         name("_UID", integer(1)),
                         name("_CRS", resources({claim(layout::kCom1), isa_interrupt(layout::kCom1Irq)}))});
}

Bytes real_time_clock() {
  return device("RTC", {name("_HID", eisa_id("PNP0B00")), name("_CRS", resources({claim(layout::kRtc)}))});
}

Bytes panic_device() {
  return device("PEVT",
                {name("_HID", string("QEMU0001")),  // QEMU, docs/specs/pvpanic.rst
                 name("_CRS", resources({claim(layout::kPvpanic)})), name("_STA", integer(kPresentAndWorking))});
}

Bytes power_button() { return device("PWRB", {name("_HID", eisa_id("PNP0C0C"))}); }

/// §5.6.9: raises its interrupt after an event; _EVT asks which one it was.
Bytes event_device() {
  return device("GED",
                {name("_HID", string("ACPI0013")), name("_CRS", resources({interrupt(layout::kGedIrq)})),
                 port_region("EVTR", layout::kAcpiEvents.start, layout::kAcpiEvents.size), byte_field("EVTR", "EVTS"),
                 method("_EVT", 1,
                        {store(reference("EVTS"), local(0)),  // once: reading clears it
                         if_true(bit_and(local(0), integer(static_cast<std::uint8_t>(AcpiEvent::PowerButton))),
                                 {notify("PWRB", kNotifyPressed)})})});
}

/// Claims what belongs to no other device, so that no driver takes it for free.
Bytes motherboard(const AcpiConfig& config) {
  const auto ecam = config.ecam ? memory32(static_cast<std::uint32_t>(raw(config.ecam->start)),
                                           static_cast<std::uint32_t>(config.ecam->size))
                                : Bytes{};
  return device(
      "MBRD",
      {name("_HID", eisa_id("PNP0C02")),
       name("_CRS", resources({claim(layout::kIsaDebugExit), claim(layout::kExitPort), claim(layout::kAcpiSleep),
                               claim(layout::kAcpiReset), claim(layout::kAcpiEvents), ecam}))});
}

}  // namespace

Bytes dsdt_terms(const AcpiConfig& config) {
  const auto off = package({integer(kAcpiSleepTypeOff), integer(0), integer(0), integer(0)});
  const auto devices = scope(
      "\\_SB", {serial_port(), real_time_clock(), panic_device(), power_button(), event_device(), motherboard(config)});
  auto terms = name("\\_S5", off);
  terms.insert(terms.end(), devices.begin(), devices.end());
  return terms;
}

}  // namespace martlet
