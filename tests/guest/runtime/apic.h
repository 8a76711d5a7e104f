#pragma once
// Local APIC (memory-mapped or x2APIC) and IO-APIC. Intel SDM vol. 3A, chapter 11; 82093AA data sheet.

#include "io.h"

namespace guest {

// Offsets of the memory-mapped registers; the x2APIC's MSR is 0x800 + offset / 16.
enum ApicRegister : u32 {
  kApicId = 0x20,
  kApicVersion = 0x30,
  kApicTaskPriority = 0x80,
  kApicEndOfInterrupt = 0xb0,
  kApicSpurious = 0xf0,
  kApicCommandLow = 0x300,
  kApicCommandHigh = 0x310,
  kApicTimer = 0x320,
  kApicLint0 = 0x350,
  kApicTimerInitial = 0x380,
  kApicTimerCurrent = 0x390,
  kApicTimerDivide = 0x3e0,
};
inline constexpr u64 kLocalApicAddress = 0xfee00000;
inline constexpr u32 kMsrApicBase = 0x1b;
inline constexpr u32 kMsrTscDeadline = 0x6e0;
inline constexpr u32 kMsrX2Apic = 0x800;
inline constexpr u64 kApicBaseX2 = 1U << 10U;
inline constexpr u64 kApicBaseEnable = 1U << 11U;

inline constexpr u32 kApicSoftwareEnable = 1U << 8U;
inline constexpr u32 kLvtMasked = 1U << 16U;
inline constexpr u32 kTimerPeriodic = 1U << 17U;
inline constexpr u32 kTimerTscDeadline = 2U << 17U;
inline constexpr u32 kDivideByOne = 0xb;

// Interrupt command register.
inline constexpr u32 kDeliverFixed = 0U << 8U;
inline constexpr u32 kDeliverInit = 5U << 8U;
inline constexpr u32 kDeliverStartup = 6U << 8U;
inline constexpr u32 kLevelAssert = 1U << 14U;
inline constexpr u32 kDeliveryPending = 1U << 12U;
inline constexpr u32 kAllButSelf = 3U << 18U;

bool has_x2apic();

/// The calling CPU's own APIC.
class LocalApic {
 public:
  /// Enables it, in the mode chosen.
  static void enable(bool x2apic);

  static u32 read(ApicRegister reg);
  static void write(ApicRegister reg, u32 value);
  static void end_of_interrupt() { write(kApicEndOfInterrupt, 0); }
  static u32 id();
  /// An interprocessor interrupt: vector with the bits above.
  static void send(u32 id, u32 command);

 private:
  static bool x2apic_;
};

class IoApic {
 public:
  explicit IoApic(u64 address) : address_{address} {}

  [[nodiscard]] u32 read(u8 index) const;
  void write(u8 index, u32 value) const;
  [[nodiscard]] u32 pins() const { return ((read(1) >> 16U) & 0xffU) + 1; }
  /// Active high, to one CPU.
  enum class Trigger : u8 { Edge, Level };
  void route(u32 pin, u8 vector, u8 apic_id, Trigger trigger = Trigger::Edge) const;
  void mask(u32 pin) const { write(static_cast<u8>(0x10 + 2 * pin), kLvtMasked); }

 private:
  u64 address_;
};

/// Both 8259s silent, and moved out of the exceptions' way.
void silence_pics();

}  // namespace guest
