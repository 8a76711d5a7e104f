#include "apic.h"

#include "idt.h"

namespace guest {

bool LocalApic::x2apic_ = false;

bool has_x2apic() { return (cpuid(1).ecx & (1U << 21U)) != 0; }

void LocalApic::enable(bool x2apic) {
  x2apic_ = x2apic;
  const u64 base = read_msr(kMsrApicBase);
  write_msr(kMsrApicBase, base | kApicBaseEnable | (x2apic ? kApicBaseX2 : 0));
  write(kApicTaskPriority, 0);
  write(kApicSpurious, kApicSoftwareEnable | kSpuriousVector);
}

u32 LocalApic::read(ApicRegister reg) {
  return x2apic_ ? static_cast<u32>(read_msr(kMsrX2Apic + reg / 16)) : mmio_read<u32>(kLocalApicAddress + reg);
}

void LocalApic::write(ApicRegister reg, u32 value) {
  if (x2apic_) {
    write_msr(kMsrX2Apic + reg / 16, value);
  } else {
    mmio_write<u32>(kLocalApicAddress + reg, value);
  }
}

u32 LocalApic::id() { return x2apic_ ? read(kApicId) : read(kApicId) >> 24U; }

void LocalApic::send(u32 id, u32 command) {
  if (x2apic_) {
    write_msr(kMsrX2Apic + kApicCommandLow / 16, (u64{id} << 32U) | command);
    return;
  }
  write(kApicCommandHigh, id << 24U);
  write(kApicCommandLow, command);
  while ((read(kApicCommandLow) & kDeliveryPending) != 0) {
    pause();
  }
}

u32 IoApic::read(u8 index) const {
  mmio_write<u32>(address_, index);
  return mmio_read<u32>(address_ + 0x10);
}

void IoApic::write(u8 index, u32 value) const {
  mmio_write<u32>(address_, index);
  mmio_write<u32>(address_ + 0x10, value);
}

void IoApic::route(u32 pin, u8 vector, u8 apic_id, Trigger trigger) const {
  constexpr u32 kLevel = 1U << 15U;
  write(static_cast<u8>(0x11 + 2 * pin), u32{apic_id} << 24U);
  write(static_cast<u8>(0x10 + 2 * pin), vector | (trigger == Trigger::Level ? kLevel : 0));
}

void silence_pics() {
  constexpr u16 kCommand[] = {0x20, 0xa0};
  constexpr u8 kInitialise = 0x11;
  constexpr u8 kBase[] = {0x20, 0x28};
  constexpr u8 kCascade[] = {0x04, 0x02};
  for (int i = 0; i < 2; ++i) {
    const auto data = static_cast<u16>(kCommand[i] + 1);
    out8(kCommand[i], kInitialise);
    out8(data, kBase[i]);
    out8(data, kCascade[i]);
    out8(data, 1);     // 8086 mode
    out8(data, 0xff);  // all masked
  }
}

}  // namespace guest
