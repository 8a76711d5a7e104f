#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>

#include "vmm/base/guest_memory.h"
#include "vmm/debug/page_walk.h"

namespace martlet {

/// A guest's memory as it looks under one set of its page tables. Only reads, and changes nothing.
class VirtualMemory {
 public:
  VirtualMemory(const GuestMemory& memory, const Paging& paging) noexcept : memory_{&memory}, paging_{paging} {}

  /// False when not all of it is mapped to RAM; `into` then holds some of it.
  [[nodiscard]] bool read(std::uint64_t addr, std::span<std::byte> into) const noexcept;

  template <class T>
    requires std::is_trivially_copyable_v<T>
  [[nodiscard]] std::optional<T> read(std::uint64_t addr) const noexcept {
    T value{};
    return read(addr, std::as_writable_bytes(std::span{&value, 1})) ? std::optional{value} : std::nullopt;
  }

  [[nodiscard]] std::optional<Translation> translate(std::uint64_t addr) const noexcept {
    return walk(*memory_, paging_, addr);
  }

 private:
  const GuestMemory* memory_;
  Paging paging_;
};

}  // namespace martlet
