#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace martlet {

/// What answers reads and writes of a range of ports or of guest-physical addresses.
///
/// `offset` counts from the start of the device's range and `data` holds 1, 2, 4 or 8 bytes,
/// little-endian, wholly inside the range. Called on vCPU threads, on several at once: a device
/// guards what they share. A guest may send anything, so nothing here throws or blocks.
class BusDevice {
 public:
  BusDevice() = default;
  BusDevice(const BusDevice&) = delete;
  BusDevice& operator=(const BusDevice&) = delete;
  virtual ~BusDevice() = default;

  virtual void read(std::uint64_t offset, std::span<std::byte> data) noexcept = 0;
  virtual void write(std::uint64_t offset, std::span<const std::byte> data) noexcept = 0;
};

/// A device with byte-wide registers. Wider accesses reach neighbouring registers, low byte first,
/// as an ISA bus splits them.
class ByteDevice : public BusDevice {
 public:
  void read(std::uint64_t offset, std::span<std::byte> data) noexcept final {
    for (auto& byte : data) {
      byte = static_cast<std::byte>(read_register(offset++));
    }
  }
  void write(std::uint64_t offset, std::span<const std::byte> data) noexcept final {
    for (const auto byte : data) {
      write_register(offset++, std::to_integer<std::uint8_t>(byte));
    }
  }

 private:
  [[nodiscard]] virtual std::uint8_t read_register(std::uint64_t offset) noexcept = 0;
  virtual void write_register(std::uint64_t offset, std::uint8_t value) noexcept = 0;
};

/// Address → device, for one address space (ports or MMIO). Ranges are disjoint and frozen before
/// the first vCPU runs, so that look-up takes no lock.
class Bus {
 public:
  struct Entry {
    std::uint64_t start = 0;
    std::uint64_t size = 0;
    BusDevice* device = nullptr;
    std::string name;  ///< for statistics and traces
  };
  /// One caller's memory of where its last access went. The run loop keeps one per vCPU and bus.
  struct LastHit {
    std::uint32_t index = 0;
  };

  /// Puts `device` at [start, start + size). A range that is empty, wraps or overlaps another one is
  /// a mistake in the machine's own recipe: throws std::logic_error that names both devices.
  void insert(std::uint64_t start, std::uint64_t size, std::string_view name, BusDevice& device);

  /// From now on insert() is a mistake, too: vCPUs look things up without a lock.
  void freeze() noexcept { frozen_ = true; }

  /// The entry whose range holds all `length` bytes at `addr`, else null.
  [[nodiscard]] const Entry* find(std::uint64_t addr, std::uint64_t length, LastHit& last) const noexcept;

  [[nodiscard]] std::span<const Entry> entries() const noexcept { return entries_; }
  [[nodiscard]] std::size_t index_of(const Entry& entry) const noexcept {
    return static_cast<std::size_t>(&entry - entries_.data());
  }

 private:
  std::vector<Entry> entries_;  // ascending
  bool frozen_ = false;
};

}  // namespace martlet
