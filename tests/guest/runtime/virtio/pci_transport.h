#pragma once
// virtio over PCI, §4.1: structures in BARs, found by vendor capabilities.

#include "pci.h"
#include "virtio/transport.h"

namespace guest::virtio {

inline constexpr u16 kPciVendorId = 0x1af4;
inline constexpr u16 kPciModernId = 0x1040;

enum PciCapability : u8 {  // §4.1.4
  kCommonConfig = 1,
  kNotifyConfig = 2,
  kInterruptStatus = 3,
  kDeviceConfig = 4,
  kPciConfigAccess = 5,
};
// Offsets into a capability.
enum PciCapabilityField : u8 { kCapType = 3, kCapBar = 4, kCapOffset = 8, kCapLength = 12, kCapMultiplier = 16 };

class PciTransport final : public Transport {
 public:
  /// False, after saying why, when a structure that has to be there is not.
  bool attach(const PciFunction& function);
  [[nodiscard]] const PciFunction& function() const { return function_; }

  [[nodiscard]] u32 device_id() const override;
  [[nodiscard]] u8 status() const override;
  void set_status(u8 status) const override;
  [[nodiscard]] u32 offered(u32 select) const override;
  [[nodiscard]] u32 accepted(u32 select) const override;
  void accept(u32 select, u32 bits) const override;
  [[nodiscard]] u16 queue_limit(u16 index) const override;
  [[nodiscard]] bool queue_enabled(u16 index) const override;
  void enable_queue(const QueueAddresses& queue) override;
  void reset_queue(u16 index) const override;
  void notify(u16 index) const override;
  [[nodiscard]] u32 take_interrupt() const override;
  [[nodiscard]] u32 config_generation() const override;
  [[nodiscard]] u64 config() const override { return config_; }
  u16 use_msix(u8 first_vector) override;
  u32 use_wire() override;
  [[nodiscard]] bool wire_is_level() const override { return true; }

  /// The capability of this type, or 0.
  [[nodiscard]] u8 find(PciCapability type) const;

 private:
  [[nodiscard]] u64 structure(PciCapability type) const;

  PciFunction function_;
  u64 common_ = 0;
  u64 notify_ = 0;
  u32 multiplier_ = 0;
  u64 doorbells_[kMostQueues] = {};
  u64 interrupt_ = 0;
  u64 config_ = 0;
};

}  // namespace guest::virtio
