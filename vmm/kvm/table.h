#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <span>

namespace martlet {

/// One of KVM's structures that end in a flexible array: header and entries in one zeroed block.
/// The caller sets the header's count, whose name differs from structure to structure.
template <class Header, class Entry>
class KvmTable {
  static_assert(sizeof(Header) % alignof(Entry) == 0);

 public:
  explicit KvmTable(std::size_t count)
      : block_{new std::byte[sizeof(Header) + count * sizeof(Entry)]{}},
        header_{new(block_.get()) Header{}},
        entries_{reinterpret_cast<Entry*>(block_.get() + sizeof(Header)), count} {}

  [[nodiscard]] Header& header() noexcept { return *header_; }
  [[nodiscard]] std::span<Entry> entries() noexcept { return entries_; }

 private:
  std::unique_ptr<std::byte[]> block_;
  Header* header_;
  std::span<Entry> entries_;
};

}  // namespace martlet
