#include "vmm/x86_64/entry.h"

#include <array>
#include <cstdint>

#include "vmm/base/error.h"
#include "vmm/kvm/uapi.h"
#include "vmm/x86_64/layout.h"

namespace martlet {
namespace {

// Intel SDM vol. 3A, section 2.5.
constexpr std::uint64_t kCr0Protection = 1;
constexpr std::uint64_t kCr0ExtensionType = 1U << 4U;
constexpr std::uint64_t kCr0Paging = 1U << 31U;
constexpr std::uint64_t kCr4Pae = 1U << 5U;
constexpr std::uint64_t kEferLongMode = (1U << 8U) | (1U << 10U);  // LME, LMA
constexpr std::uint64_t kRflagsReserved = 2;

// Page table entries, Intel SDM vol. 3A, section 4.5.
constexpr std::uint64_t kPresentWritable = 3;
constexpr std::uint64_t kLargePage = 1U << 7U;
constexpr std::uint64_t kPageSize = 4096;
constexpr std::size_t kEntriesPerTable = 512;
using PageTable = std::array<std::uint64_t, kEntriesPerTable>;

// Selectors that both protocols' kernels expect: __BOOT_CS and __BOOT_DS.
constexpr std::uint16_t kCodeSelector = 0x10;
constexpr std::uint16_t kDataSelector = 0x18;
constexpr std::uint16_t kTaskSelector = 0x20;

/// Flat segments, Intel SDM vol. 3A, section 3.4.5. `type` as in table 3-1.
constexpr kvm_segment flat_segment(std::uint16_t selector, std::uint8_t type) {
  kvm_segment segment{};
  segment.limit = 0xffffffff;
  segment.selector = selector;
  segment.type = type;
  segment.present = 1;
  segment.s = 1;  // code or data, not system
  segment.g = 1;  // limit in pages
  return segment;
}

struct Segments {
  kvm_segment code = flat_segment(kCodeSelector, 0xb);  // execute, read, accessed
  kvm_segment data = flat_segment(kDataSelector, 0x3);  // read, write, accessed
  kvm_segment task = flat_segment(kTaskSelector, 0xb);  // busy TSS: a CPU never enters without one
};

Segments make_segments(bool long_mode) {
  Segments segments;
  segments.code.l = long_mode ? 1 : 0;
  segments.code.db = long_mode ? 0 : 1;
  segments.data.db = 1;
  segments.task.s = 0;
  segments.task.g = 0;
  segments.task.limit = 0x67;
  return segments;
}

/// The segment as the GDT holds it.
constexpr std::uint64_t descriptor(const kvm_segment& segment) {
  const std::uint64_t limit = segment.g != 0 ? segment.limit >> 12U : segment.limit;
  const std::uint64_t flags = segment.type | (std::uint64_t{segment.s} << 4U) | (std::uint64_t{segment.present} << 7U) |
                              (std::uint64_t{segment.l} << 13U) | (std::uint64_t{segment.db} << 14U) |
                              (std::uint64_t{segment.g} << 15U);
  return (limit & 0xffffU) | ((limit & 0xf0000U) << 32U) | (flags << 40U);
}

void put(const GuestMemory& memory, GuestAddr addr, const auto& value) {
  if (!memory.write(addr, value)) {
    throw HostError{"guest memory is too small to boot a kernel; use -m 2M or more"};
  }
}

void write_page_tables(const GuestMemory& memory) {
  constexpr std::uint64_t kDirectories = 4;  // 1 GiB each
  const GuestAddr pml4 = layout::kPageTables.start;
  const GuestAddr pdpt = pml4 + kPageSize;
  const GuestAddr directories = pdpt + kPageSize;
  static_assert(layout::kPageTables.size == (2 + kDirectories) * kPageSize);
  put(memory, pml4, raw(pdpt) | kPresentWritable);
  for (std::uint64_t gib = 0; gib < kDirectories; ++gib) {
    const GuestAddr directory = directories + gib * kPageSize;
    put(memory, pdpt + gib * sizeof(std::uint64_t), raw(directory) | kPresentWritable);
    PageTable table;
    for (std::uint64_t i = 0; i < table.size(); ++i) {
      table[i] = gib * layout::kGiB + i * 2 * layout::kMiB + (kPresentWritable | kLargePage);
    }
    put(memory, directory, table);
  }
}

/// Loads the GDT and all segment registers; the rest of `sregs` is the mode's.
void set_segments(kvm_sregs& sregs, const GuestMemory& memory, bool long_mode) {
  const Segments segments = make_segments(long_mode);
  const std::array<std::uint64_t, 5> gdt = {0, 0, descriptor(segments.code), descriptor(segments.data),
                                            descriptor(segments.task)};
  static_assert(sizeof gdt <= layout::kGdt.size);
  put(memory, layout::kGdt.start, gdt);
  sregs.gdt.base = raw(layout::kGdt.start);
  sregs.gdt.limit = sizeof gdt - 1;
  sregs.idt = {};
  sregs.cs = segments.code;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segments.data;
  sregs.tr = segments.task;
}

}  // namespace

void enter_linux64(const Vcpu& vcpu, const GuestMemory& memory, GuestAddr entry) {
  kvm_sregs sregs{};
  kvm_ioctl(vcpu.fd(), KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
  write_page_tables(memory);
  set_segments(sregs, memory, true);
  sregs.cr0 = kCr0Protection | kCr0ExtensionType | kCr0Paging;
  sregs.cr3 = raw(layout::kPageTables.start);
  sregs.cr4 = kCr4Pae;
  sregs.efer = kEferLongMode;
  kvm_ioctl(vcpu.fd(), KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");

  kvm_regs regs{};
  regs.rip = raw(entry);
  regs.rflags = kRflagsReserved;
  regs.rsp = layout::kBootStack.end();
  regs.rsi = raw(layout::kZeroPage.start);
  kvm_ioctl(vcpu.fd(), KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

void enter_pvh(const Vcpu& vcpu, const GuestMemory& memory, GuestAddr entry) {
  kvm_sregs sregs{};
  kvm_ioctl(vcpu.fd(), KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
  set_segments(sregs, memory, false);
  sregs.cr0 = kCr0Protection | kCr0ExtensionType;
  sregs.cr3 = 0;
  sregs.cr4 = 0;
  sregs.efer = 0;
  kvm_ioctl(vcpu.fd(), KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");

  kvm_regs regs{};
  regs.rip = raw(entry);
  regs.rflags = kRflagsReserved;
  regs.rbx = raw(layout::kPvhStartInfo.start);
  kvm_ioctl(vcpu.fd(), KVM_SET_REGS, &regs, "KVM_SET_REGS");
}

}  // namespace martlet
