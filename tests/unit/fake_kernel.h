#pragma once

#include <elf.h>
#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "vmm/base/guest_memory.h"
#include "vmm/debug/vmcoreinfo.h"
#include "vmm/x86_64/cpu_state.h"

namespace martlet {

/// A guest whose memory looks as if a Linux kernel ran in it: page tables for its image (moved by KASLR, in virtual
/// and in physical memory) and for all of RAM, and a VMCOREINFO that a test fills.
class FakeKernel {
 public:
  static constexpr std::uint64_t kRam = 64U << 20U;
  static constexpr std::uint64_t kOffset = 0x1c80'0000;
  static constexpr std::uint64_t kText = 0xffff'ffff'8100'0000 + kOffset;
  static constexpr std::uint64_t kTextPhysical = 0x80'0000;
  static constexpr std::uint64_t kImageSize = 8U << 20U;
  static constexpr std::uint64_t kDirectMap = 0xffff'9a40'0000'0000;
  static constexpr std::uint64_t kTables = kText + 0x60'0000;  // swapper_pg_dir
  static constexpr std::uint64_t kNote = 0x30'0000;            // physical

  FakeKernel() : FakeKernel(std::vector<GuestRange>{{GuestAddr{0}, kRam}}) {}
  explicit FakeKernel(const std::vector<GuestRange>& ranges, GuestMemory::Backing backing = {})
      : memory{ranges, backing} {
    constexpr std::uint64_t kTable = 0x3;  // present, writable
    constexpr std::uint64_t kPage = 0x83;  // a large one
    const std::uint64_t root = physical(kTables);
    const std::uint64_t image_pud = root + 0x1000;
    const std::uint64_t image_pmd = root + 0x2000;
    const std::uint64_t ram_pud = root + 0x3000;
    set_entry(root, kText >> 39U, image_pud | kTable);
    set_entry(image_pud, kText >> 30U, image_pmd | kTable);
    for (std::uint64_t at = 0; at < kImageSize; at += 2U << 20U) {
      set_entry(image_pmd, (kText + at) >> 21U, (kTextPhysical + at) | kPage);
    }
    set_entry(root, kDirectMap >> 39U, ram_pud | kTable);
    set_entry(ram_pud, kDirectMap >> 30U, kPage | std::uint64_t{1} << 63U);
    say("OSRELEASE", "6.1.0-fake");
    say("BUILD-ID", "00112233445566778899aabbccddeeff00112233");
    say("PAGESIZE", "4096");
    say("SYMBOL(swapper_pg_dir)", fmt::format("{:x}", kTables));
    say("SYMBOL(_stext)", fmt::format("{:x}", kText));
    say("SYMBOL(mem_section)", fmt::format("{:x}", kDirectMap + 0x3000));
    say("NUMBER(phys_base)", fmt::format("{}", static_cast<std::int64_t>(kTextPhysical - (kText - kKernelMap))));
    say("NUMBER(pgtable_l5_enabled)", "0");
    say("KERNELOFFSET", fmt::format("{:x}", kOffset));
  }

  static constexpr std::uint64_t physical(std::uint64_t addr) {
    return addr >= kKernelMap ? addr - kText + kTextPhysical : addr - kDirectMap;
  }

  void say(std::string_view key, std::string_view value) { text += fmt::format("{}={}\n", key, value); }

  template <class T>
    requires(!std::is_convertible_v<T, std::string_view>)
  void poke(std::uint64_t addr, const T& value) const {
    (void)memory.write(GuestAddr{physical(addr)}, value);
  }
  void poke(std::uint64_t addr, std::string_view bytes) const {
    (void)memory.write(GuestAddr{physical(addr)}, std::as_bytes(std::span{bytes.data(), bytes.size()}));
  }

  /// Puts the note there, as an ELF note in memory.
  void publish(std::uint64_t at = kNote) const {
    const Elf64_Nhdr header{.n_namesz = 11, .n_descsz = static_cast<Elf64_Word>(text.size()), .n_type = 0};
    const std::string_view name{"VMCOREINFO\0", 12};
    (void)memory.write(GuestAddr{at}, header);
    (void)memory.write(GuestAddr{at + sizeof header}, std::as_bytes(std::span{name.data(), name.size()}));
    (void)memory.write(GuestAddr{at + sizeof header + name.size()}, std::as_bytes(std::span{text}));
  }

  [[nodiscard]] VmCoreInfo info() const { return VmCoreInfo::parse(text).value(); }

  /// In the kernel, at `rip`.
  [[nodiscard]] CpuState cpu(std::uint64_t rip, std::uint64_t rsp, std::uint64_t rbp = 0) const {
    CpuState state;
    const auto paging = info().kernel_paging().value();
    state.regs.rip = rip;
    state.regs.rsp = rsp;
    state.regs.rbp = rbp;
    state.sregs.cr0 = paging.cr0;
    state.sregs.cr3 = paging.cr3;
    state.sregs.cr4 = paging.cr4;
    state.sregs.efer = paging.efer;
    state.sregs.cs.selector = 0x10;
    return state;
  }

  GuestMemory memory;
  std::string text;

 private:
  static constexpr std::uint64_t kKernelMap = 0xffff'ffff'8000'0000;
  void set_entry(std::uint64_t table, std::uint64_t index, std::uint64_t entry) const {
    (void)memory.write(GuestAddr{table + index % 512 * 8}, entry);
  }
};

}  // namespace martlet
