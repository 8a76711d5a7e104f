#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>

#include "vmm/base/guest_memory.h"

namespace martlet::gdb {

/// int3 instructions written over a guest's code, and the bytes that were there. By physical address, for that is
/// what they change: every address space that maps the page.
class Patches {
 public:
  explicit Patches(const GuestMemory& memory) noexcept : memory_{memory} {}

  /// One more user of an int3 at `addr`. False outside RAM, and when there are too many.
  [[nodiscard]] bool insert(GuestAddr addr);
  /// One user less; the last one's removal brings the code back, unless the guest wrote over it meanwhile.
  void remove(GuestAddr addr);
  void clear();

  [[nodiscard]] bool at(GuestAddr addr) const { return patches_.contains(raw(addr)); }
  [[nodiscard]] bool empty() const noexcept { return patches_.empty(); }

  /// For one step: the guest's code is back, and then covered again.
  void lift(GuestAddr addr);
  void put_back(GuestAddr addr);

  /// Makes a copy of memory at `from` look as if nothing were patched.
  void hide(GuestAddr from, std::span<std::byte> copy) const;
  /// Writes `bytes` into guest memory (all of it RAM), underneath the patches.
  void write(GuestAddr to, std::span<const std::byte> bytes);

  static constexpr std::byte kInt3{0xcc};

 private:
  struct Patch {
    std::byte original;
    unsigned users;
  };

  [[nodiscard]] bool covers(GuestAddr addr) const noexcept { return memory_.read<std::byte>(addr) == kInt3; }

  const GuestMemory& memory_;
  std::map<std::uint64_t, Patch> patches_;
};

}  // namespace martlet::gdb
