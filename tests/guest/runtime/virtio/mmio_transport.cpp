#include "virtio/mmio_transport.h"

#include "args.h"
#include "check.h"

namespace guest::virtio {
namespace {

enum Register : u64 {  // §4.2.2, table 4.1
  kMagic = 0x00,
  kVersion = 0x04,
  kDeviceIdRegister = 0x08,
  kOffered = 0x10,
  kOfferedSelect = 0x14,
  kAccepted = 0x20,
  kAcceptedSelect = 0x24,
  kQueueSelect = 0x30,
  kQueueSizeMax = 0x34,
  kQueueSize = 0x38,
  kQueueReady = 0x44,
  kQueueNotify = 0x50,
  kInterruptStatus = 0x60,
  kInterruptAck = 0x64,
  kStatus = 0x70,
  kQueueDescriptors = 0x80,
  kQueueDriver = 0x90,
  kQueueDevice = 0xa0,
  kQueueReset = 0xc0,
  kGeneration = 0xfc,
};
constexpr u32 kMagicValue = 0x74726976;  // "virt"

u64 number(const char*& at) {
  u64 base = 10;
  if (at[0] == '0' && at[1] == 'x') {
    base = 16;
    at += 2;
  }
  u64 value = 0;
  for (;; ++at) {
    const char c = *at;
    if (c >= '0' && c <= '9') {
      value = value * base + static_cast<u64>(c - '0');
    } else if (base == 16 && (c | 0x20) >= 'a' && (c | 0x20) <= 'f') {
      value = value * base + static_cast<u64>((c | 0x20) - 'a' + 10);
    } else {
      break;
    }
  }
  if (*at == 'K' || *at == 'k') {
    value <<= 10U;
    ++at;
  }
  return value;
}

}  // namespace

bool find_mmio_slot(u32 index, MmioSlot& slot) {
  constexpr char kWord[] = "virtio_mmio.device=";
  constexpr u64 kLength = sizeof kWord - 1;
  for (const char* at = command_line; *at != '\0';) {
    if (__builtin_memcmp(at, kWord, kLength) == 0 && index-- == 0) {
      at += kLength;
      slot.size = number(at);
      slot.address = *at == '@' ? number(++at) : 0;
      slot.irq = *at == ':' ? static_cast<u32>(number(++at)) : 0;
      check(slot.address != 0 && slot.irq != 0, "virtio_mmio.device= has an address and an interrupt");
      return slot.address != 0;
    }
    while (*at != '\0' && *at++ != ' ') {
    }
  }
  return false;
}

bool MmioTransport::attach(const MmioSlot& slot) {
  slot_ = slot;
  if (read(kMagic) != kMagicValue || read(kDeviceIdRegister) == 0) {
    return false;
  }
  check_equal(read(kVersion), 2, "virtio-mmio's version");
  return read(kVersion) == 2;
}

u32 MmioTransport::device_id() const { return read(kDeviceIdRegister); }
u8 MmioTransport::status() const { return static_cast<u8>(read(kStatus)); }
void MmioTransport::set_status(u8 status) const { write(kStatus, status); }

u32 MmioTransport::offered(u32 select) const {
  write(kOfferedSelect, select);
  return read(kOffered);
}
void MmioTransport::accept(u32 select, u32 bits) const {
  write(kAcceptedSelect, select);
  write(kAccepted, bits);
}

u16 MmioTransport::queue_limit(u16 index) const {
  write(kQueueSelect, index);
  return static_cast<u16>(read(kQueueSizeMax));
}
bool MmioTransport::queue_enabled(u16 index) const {
  write(kQueueSelect, index);
  return read(kQueueReady) != 0;
}
void MmioTransport::write_address(u64 offset, u64 value) const {
  write(offset, static_cast<u32>(value));
  write(offset + 4, static_cast<u32>(value >> 32U));
}
void MmioTransport::enable_queue(const QueueAddresses& queue) {
  write(kQueueSelect, queue.index);
  write(kQueueSize, queue.size);
  write_address(kQueueDescriptors, queue.descriptors);
  write_address(kQueueDriver, queue.driver);
  write_address(kQueueDevice, queue.device);
  write(kQueueReady, 1);
}
void MmioTransport::reset_queue(u16 index) const {
  write(kQueueSelect, index);
  write(kQueueReset, 1);
  while (read(kQueueReset) != 0) {
    pause();
  }
}
void MmioTransport::notify(u16 index) const { write(kQueueNotify, index); }

u32 MmioTransport::take_interrupt() const {
  const u32 status = read(kInterruptStatus);
  write(kInterruptAck, status);
  return status;
}
u32 MmioTransport::config_generation() const { return read(kGeneration); }

}  // namespace guest::virtio
