#include "boot/dsdt.h"

#include <fmt/format.h>

#include <vector>

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

Bytes firmware_configuration() {
  return device("FWCF", {name("_HID", string("QEMU0002")),  // QEMU, docs/specs/fw_cfg.rst
                         name("_CRS", resources({claim(layout::kFwCfg)})), name("_STA", integer(kPresentAndWorking))});
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

/// A PCI host bridge with one bus (PCI Firmware Specification 3.3 §4). Without PCI Express's _HID, whose
/// _OSC would only be asked for what this bus has not got.
Bytes pci_bus() {
  constexpr std::uint32_t kAllFunctions = 0xffff;
  constexpr std::uint8_t kIntA = 0;
  std::vector<Bytes> routes;
  for (std::uint32_t slot = 1; slot < layout::kPciSlots; ++slot) {
    const auto gsi = layout::kPciIrqs.at(slot % layout::kPciIrqs.size());
    routes.push_back(
        package({integer(slot << 16U | kAllFunctions), integer(kIntA), integer(0), integer(gsi)}));  // ACPI 6.5 §6.2.13
  }
  const auto window = memory_window32(static_cast<std::uint32_t>(raw(layout::kPciMmio32.start)),
                                      static_cast<std::uint32_t>(layout::kPciMmio32.size));
  return device("PCI0", {name("_HID", eisa_id("PNP0A03")), name("_UID", integer(0)), name("_SEG", integer(0)),
                         name("_BBN", integer(0)), name("_PRT", package(routes)),
                         name("_CRS", resources({bus_numbers(0, 0), claim(layout::kPciConfigAddress),
                                                 claim(layout::kPciConfigData), window}))});
}

/// virtio 1.2 has no ACPI binding of its own; this is the id that Linux's and other drivers know.
Bytes virtio_mmio(std::size_t slot) {
  const auto range = layout::virtio_mmio(slot);
  return device(
      fmt::format("VR{:02X}", slot),
      {name("_HID", string("LNRO0005")), name("_UID", integer(slot)),
       name("_CRS",
            resources({memory32(static_cast<std::uint32_t>(raw(range.start)), static_cast<std::uint32_t>(range.size)),
                       interrupt(layout::kVirtioMmioIrqs.at(slot))}))});
}

}  // namespace

Bytes dsdt_terms(const AcpiConfig& config) {
  const auto off = package({integer(kAcpiSleepTypeOff), integer(0), integer(0), integer(0)});
  Bytes buses = config.ecam ? pci_bus() : Bytes{};
  for (std::size_t slot = 0; slot < config.virtio_mmio; ++slot) {
    const auto node = virtio_mmio(slot);
    buses.insert(buses.end(), node.begin(), node.end());
  }
  const auto devices = scope("\\_SB", {serial_port(), real_time_clock(), panic_device(), firmware_configuration(),
                                       power_button(), event_device(), motherboard(config), buses});
  auto terms = name("\\_S5", off);
  terms.insert(terms.end(), devices.begin(), devices.end());
  return terms;
}

}  // namespace martlet
