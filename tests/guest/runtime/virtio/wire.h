#pragma once
// virtio 1.2, the driver's side, written from the specification and from nothing of the project's own.

#include <initializer_list>

#include "io.h"

namespace guest::virtio {

enum DeviceId : u32 { kNet = 1, kBlock = 2, kConsole = 3, kEntropy = 4 };  // §5

enum StatusBit : u8 {  // §2.1
  kAcknowledge = 1,
  kDriver = 2,
  kDriverOk = 4,
  kFeaturesOk = 8,
  kNeedsReset = 64,
  kFailed = 128,
};

constexpr u64 bit(unsigned number) { return u64{1} << number; }

// Feature bits of rings and transports, §6.
inline constexpr u64 kIndirectDescriptors = bit(28);
inline constexpr u64 kEventIndex = bit(29);
inline constexpr u64 kVersion1 = bit(32);
inline constexpr u64 kRingPacked = bit(34);
inline constexpr u64 kRingReset = bit(40);
inline constexpr u64 kReservedFeature = bit(63);  // of no device

inline constexpr u16 kNext = 1;  // descriptor flags, §2.7.5 and §2.8.1
inline constexpr u16 kWrite = 2;
inline constexpr u16 kIndirect = 4;
inline constexpr u16 kPackedAvail = 1U << 7U;
inline constexpr u16 kPackedUsed = 1U << 15U;

inline constexpr u16 kNoVector = 0xffff;  // §4.1.5.1.2.1

/// Both rings' descriptors: in a split ring `tail` is flags then next, in a packed one id then flags.
struct Descriptor {
  u64 address;
  u32 size;
  u16 tail[2];
};
static_assert(sizeof(Descriptor) == 16);

}  // namespace guest::virtio
