#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "vmm/base/guest_memory.h"
#include "vmm/debug/page_walk.h"

namespace martlet {

/// What a Linux kernel tells those who read its memory from outside: where things are and how they are laid out
/// (Documentation/admin-guide/kdump/vmcoreinfo.rst). It is the guest's word: each value is to be checked.
class VmCoreInfo {
 public:
  /// Nothing when it is not the text of a VMCOREINFO note of an x86-64 kernel.
  [[nodiscard]] static std::optional<VmCoreInfo> parse(std::string_view text);

  [[nodiscard]] const std::string& text() const noexcept { return text_; }
  /// "" when it is not there.
  [[nodiscard]] std::string_view value(std::string_view key) const;

  [[nodiscard]] std::string_view release() const { return value("OSRELEASE"); }
  [[nodiscard]] std::string_view build_id() const { return value("BUILD-ID"); }
  /// By how much KASLR moved the kernel's text.
  [[nodiscard]] std::uint64_t kernel_offset() const;

  /// The running kernel's address of `name`; `field` is "structure.member".
  [[nodiscard]] std::optional<std::uint64_t> symbol(std::string_view name) const;
  [[nodiscard]] std::optional<std::uint64_t> offset(std::string_view field) const;
  [[nodiscard]] std::optional<std::uint64_t> size(std::string_view type) const;
  [[nodiscard]] std::optional<std::int64_t> number(std::string_view name) const;

  /// The kernel's own page tables, whatever process runs. Nothing when the kernel does not say where they are.
  [[nodiscard]] std::optional<Paging> kernel_paging() const;

 private:
  [[nodiscard]] std::optional<std::uint64_t> unsigned_value(std::string_view kind, std::string_view name,
                                                            int base) const;

  std::string text_;
  std::map<std::string, std::string, std::less<>> values_;
};

/// Linux since 4.13 has it at the start of a page, and where there is none that is far quicker found out.
enum class LookFor { InPages, Everywhere };

/// Looks for it in all of guest RAM that was ever touched. A kernel has it from early in its start on (about when it
/// looks for PCI devices); before that there is none. A copy that a guest's program made up can be found instead.
/// `told`: where the guest says it is (fw_cfg), looked at first and believed as little.
[[nodiscard]] std::optional<VmCoreInfo> find_vmcoreinfo(const GuestMemory& memory, std::optional<GuestRange> told = {},
                                                        LookFor where = LookFor::Everywhere);

}  // namespace martlet
