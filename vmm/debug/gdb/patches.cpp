#include "vmm/debug/gdb/patches.h"

namespace martlet::gdb {
namespace {

constexpr std::size_t kMaxPatches = 4096;  // a client may ask for as many as it likes

}  // namespace

bool Patches::insert(GuestAddr addr) {
  if (const auto found = patches_.find(raw(addr)); found != patches_.end()) {
    ++found->second.users;
    return true;
  }
  const auto original = memory_.read<std::byte>(addr);
  if (!original || patches_.size() == kMaxPatches) {
    return false;
  }
  patches_[raw(addr)] = {.original = *original, .users = 1};
  return memory_.write(addr, kInt3);
}

void Patches::remove(GuestAddr addr) {
  const auto found = patches_.find(raw(addr));
  if (found != patches_.end() && --found->second.users == 0) {
    lift(addr);
    patches_.erase(found);
  }
}

void Patches::clear() {
  for (const auto& [addr, patch] : patches_) {
    lift(GuestAddr{addr});
  }
  patches_.clear();
}

void Patches::lift(GuestAddr addr) {
  const auto found = patches_.find(raw(addr));
  if (found != patches_.end() && covers(addr)) {
    static_cast<void>(memory_.write(addr, found->second.original));
  }
}

void Patches::put_back(GuestAddr addr) {
  const auto found = patches_.find(raw(addr));
  if (found != patches_.end() && memory_.read<std::byte>(addr) == found->second.original) {
    static_cast<void>(memory_.write(addr, kInt3));
  }
}

void Patches::hide(GuestAddr from, std::span<std::byte> copy) const {
  for (auto patch = patches_.lower_bound(raw(from)); patch != patches_.end(); ++patch) {
    const std::uint64_t offset = patch->first - raw(from);
    if (offset >= copy.size()) {
      return;
    }
    if (copy[offset] == kInt3) {
      copy[offset] = patch->second.original;
    }
  }
}

void Patches::write(GuestAddr to, std::span<const std::byte> bytes) {
  static_cast<void>(memory_.write(to, bytes));
  for (auto patch = patches_.lower_bound(raw(to)); patch != patches_.end(); ++patch) {
    const std::uint64_t offset = patch->first - raw(to);
    if (offset >= bytes.size()) {
      return;
    }
    patch->second.original = bytes[offset];
    static_cast<void>(memory_.write(GuestAddr{patch->first}, kInt3));
  }
}

}  // namespace martlet::gdb
