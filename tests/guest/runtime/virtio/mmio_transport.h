#pragma once
// virtio over MMIO, §4.2, found by the command line's virtio_mmio.device=SIZE@ADDRESS:IRQ.

#include "virtio/transport.h"

namespace guest::virtio {

struct MmioSlot {
  u64 size = 0;
  u64 address = 0;
  u32 irq = 0;
};
/// The command line's number `index`; false when there are fewer.
bool find_mmio_slot(u32 index, MmioSlot& slot);

class MmioTransport final : public Transport {
 public:
  /// False when no device is there. Says so when it is none of version 2.
  bool attach(const MmioSlot& slot);

  [[nodiscard]] u32 device_id() const override;
  [[nodiscard]] u8 status() const override;
  void set_status(u8 status) const override;
  [[nodiscard]] u32 offered(u32 select) const override;
  [[nodiscard]] u32 accepted(u32 /*select*/) const override { return ~0U; }
  void accept(u32 select, u32 bits) const override;
  [[nodiscard]] u16 queue_limit(u16 index) const override;
  [[nodiscard]] bool queue_enabled(u16 index) const override;
  void enable_queue(const QueueAddresses& queue) override;
  void reset_queue(u16 index) const override;
  void notify(u16 index) const override;
  [[nodiscard]] u32 take_interrupt() const override;
  [[nodiscard]] u32 config_generation() const override;
  [[nodiscard]] u64 config() const override { return slot_.address + 0x100; }
  u32 use_wire() override { return slot_.irq; }
  [[nodiscard]] bool wire_is_level() const override { return false; }

 private:
  [[nodiscard]] u32 read(u64 offset) const { return mmio_read<u32>(slot_.address + offset); }
  void write(u64 offset, u32 value) const { mmio_write<u32>(slot_.address + offset, value); }
  void write_address(u64 offset, u64 value) const;

  MmioSlot slot_;
};

}  // namespace guest::virtio
