#pragma once
// What a virtio driver and device say to each other, bit for bit (virtio 1.2). All little-endian, as
// every machine is that Martlet runs on.

#include <bit>
#include <cstddef>
#include <cstdint>

namespace martlet::virtio {

static_assert(std::endian::native == std::endian::little);

enum class DeviceId : std::uint16_t { Net = 1, Block = 2, Console = 3, Entropy = 4 };  // §5

/// Bits of the device status field, §2.1.
enum Status : std::uint8_t {
  kAcknowledge = 1U << 0U,
  kDriver = 1U << 1U,
  kDriverOk = 1U << 2U,
  kFeaturesOk = 1U << 3U,
  kNeedsReset = 1U << 6U,
  kFailed = 1U << 7U,
};

/// Feature bits that belong to rings and transports, §6. Those below 24 are each device's own.
enum Feature : std::uint64_t {
  kIndirectDescriptors = 1ULL << 28U,
  kEventIndex = 1ULL << 29U,
  kVersion1 = 1ULL << 32U,
  kRingPacked = 1ULL << 34U,
  kInOrder = 1ULL << 35U,
  kRingReset = 1ULL << 40U,
};

/// Flags of a descriptor, §2.7.5 and §2.8.1.
enum DescriptorFlag : std::uint16_t {
  kNext = 1U << 0U,
  kWrite = 1U << 1U,  ///< the device writes, the driver reads
  kIndirect = 1U << 2U,
  kPackedAvail = 1U << 7U,
  kPackedUsed = 1U << 15U,
};

struct SplitDescriptor {
  std::uint64_t addr;
  std::uint32_t len;
  std::uint16_t flags;
  std::uint16_t next;
};
static_assert(sizeof(SplitDescriptor) == 16);  // §2.7.5

struct UsedElement {
  std::uint32_t id;
  std::uint32_t len;
};
static_assert(sizeof(UsedElement) == 8);  // §2.7.8

/// Ring flags of split rings: the driver's "no interrupts, please" and the device's "no notifications".
inline constexpr std::uint16_t kAvailNoInterrupt = 1;  // §2.7.7
inline constexpr std::uint16_t kUsedNoNotify = 1;      // §2.7.10

struct PackedDescriptor {
  std::uint64_t addr;
  std::uint32_t len;
  std::uint16_t id;
  std::uint16_t flags;
};
static_assert(sizeof(PackedDescriptor) == 16);  // §2.8.13

/// Event suppression of packed rings, §2.8.14.
struct PackedEvent {
  std::uint16_t offset_wrap;  ///< bits 0 to 14: ring offset; bit 15: wrap counter
  std::uint16_t flags;        ///< PackedEventFlags
};
static_assert(sizeof(PackedEvent) == 4);
enum PackedEventFlags : std::uint16_t { kEventsEnabled = 0, kEventsDisabled = 1, kEventAtDescriptor = 2 };

}  // namespace martlet::virtio
