// What a request costs the device's side of a virtqueue: pop, complete and its share of notify(), per ring
// format, with three descriptors as a block request has (header, data, status), directly and in a table. The
// driver's side is as cheap as can be: it makes the same chain available again and again, whole rings at a time.

#include <array>
#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <tuple>
#include <utility>

#include "devices/virtio/queue.h"
#include "devices/virtio/wire.h"
#include "vmm/base/guest_memory.h"

namespace martlet::virtio {
namespace {

constexpr std::uint16_t kSize = 256;
constexpr std::uint16_t kBatch = 64;
constexpr GuestAddr kDescriptors{0x1000}, kDriverArea{0x3000}, kDeviceArea{0x4000}, kTable{0x8000};
constexpr std::uint64_t kBuffers = 0x10000;
constexpr std::array<GuestRange, 2> kRam{{{GuestAddr{0}, 1U << 20U}, {GuestAddr{1ULL << 32U}, 1U << 20U}}};

struct Nobody final : DriverInterrupts {
  void queue_used(std::uint16_t) noexcept override { ++interrupts; }
  void config_changed() noexcept override {}
  void needs_reset() noexcept override { ++interrupts; }
  [[nodiscard]] int call_fd(std::uint16_t) const noexcept override { return -1; }
  unsigned interrupts = 0;
};

struct Bench {
  Bench(std::uint64_t which, bool in_table) : ring{which}, indirect{in_table} {
    if (!packed) {
      for (std::uint16_t i = 0; i < kSize; ++i) {
        put_split(kDescriptors, i, indirect ? 0 : i % 4);
        put(kDriverArea + 4 + i * std::uint64_t{2}, static_cast<std::uint16_t>(indirect ? i : i % 64 * 4));
      }
    }
    for (std::uint16_t i = 0; i < 3; ++i) {
      const auto flags = static_cast<std::uint16_t>(i == 0 ? 0U : unsigned{kWrite});
      const auto more = static_cast<std::uint16_t>(i < 2 ? unsigned{kNext} : 0U);
      if (packed) {
        put(kTable + i * std::uint64_t{16}, PackedDescriptor{buffer(i), length(i), 0, flags});
      } else {
        put(kTable + i * std::uint64_t{16},
            SplitDescriptor{buffer(i), length(i), static_cast<std::uint16_t>(flags | more),
                            static_cast<std::uint16_t>(i + 1)});
      }
    }
  }

  template <class T>
  void put(GuestAddr addr, const T& value) {
    if (!memory.write(addr, value)) {
      std::abort();
    }
  }
  static std::uint64_t buffer(unsigned part) { return kBuffers + part * 0x2000ULL; }
  static std::uint32_t length(unsigned part) { return std::array{16U, 4096U, 1U}.at(part); }

  void put_split(GuestAddr table, std::uint16_t i, unsigned part) {
    const auto at = table + i * std::uint64_t{16};
    if (indirect) {
      put(at, SplitDescriptor{raw(kTable), 48, kIndirect, 0});
    } else if (part < 3) {
      const unsigned flags = (part > 0 ? unsigned{kWrite} : 0U) | (part < 2 ? unsigned{kNext} : 0U);
      put(at, SplitDescriptor{buffer(part), length(part), static_cast<std::uint16_t>(flags),
                              static_cast<std::uint16_t>(i + 1)});
    }
  }
  void put_packed(std::uint16_t id) {
    const unsigned parts = indirect ? 1 : 3;
    for (unsigned part = 0; part < parts; ++part) {
      const unsigned direct = (part > 0 ? unsigned{kWrite} : 0U) | (part < 2 ? unsigned{kNext} : 0U);
      const unsigned flags =
          (indirect ? unsigned{kIndirect} : direct) | (wrap ? unsigned{kPackedAvail} : unsigned{kPackedUsed});
      put(kDescriptors + slot * std::uint64_t{16},
          PackedDescriptor{indirect ? raw(kTable) : buffer(part), indirect ? 48U : length(part), id,
                           static_cast<std::uint16_t>(flags)});
      if (++slot == kSize) {
        slot = 0;
        wrap = !wrap;
      }
    }
  }

  /// The driver's side of one batch.
  void submit() {
    if (!packed) {
      avail = static_cast<std::uint16_t>(avail + kBatch);
      put(kDriverArea + 2, avail);
      return;
    }
    for (std::uint16_t i = 0; i < kBatch; ++i) {
      put_packed(i);
    }
  }
  /// The device's side.
  std::uint32_t serve() {
    std::uint32_t bytes = 0;
    while (auto chain = queue->pop()) {
      bytes += chain->writable_bytes();
      queue->complete(std::move(*chain), 4097);
    }
    queue->notify();
    return bytes;
  }

  std::uint64_t ring;  // kRingPacked or 0
  bool packed = ring != 0;
  bool indirect;
  GuestMemory memory{kRam};
  Nobody nobody;
  std::unique_ptr<VirtQueue> queue =
      VirtQueue::make(memory,
                      {.size = kSize,
                       .descriptors = kDescriptors,
                       .driver = kDriverArea,
                       .device = kDeviceArea,
                       .features = kVersion1 | kEventIndex | kIndirectDescriptors | ring},
                      nobody);
  std::uint16_t avail = 0;
  std::uint16_t slot = 0;
  bool wrap = true;
};

TEST_CASE("virtqueue: 64 requests of three buffers, popped and completed") {
  for (const std::uint64_t ring : {std::uint64_t{0}, std::uint64_t{kRingPacked}}) {
    for (const bool indirect : {false, true}) {
      Bench bench{ring, indirect};
      bench.submit();
      REQUIRE(bench.serve() == kBatch * 4097U);
      const std::string name = std::string{ring == 0 ? "split" : "packed"} + (indirect ? ", indirect" : "");
      BENCHMARK(name + ": both sides") {
        bench.submit();
        return bench.serve();
      };
      BENCHMARK(name + ": the driver's side alone, to subtract") {
        // Rewrites the same slots: the device sees none of it.
        const auto saved = std::tuple{bench.avail, bench.slot, bench.wrap};
        bench.wrap = !bench.wrap;
        bench.submit();
        std::tie(bench.avail, bench.slot, bench.wrap) = saved;
      };
    }
  }
}

}  // namespace
}  // namespace martlet::virtio
