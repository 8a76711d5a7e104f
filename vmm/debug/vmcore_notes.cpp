#include "vmm/debug/vmcore_notes.h"

#include <elf.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

namespace martlet {
namespace {

// struct elf_prstatus of x86-64 (Linux, include/linux/elfcore.h), with the registers in ptrace's order.
struct PrStatus {
  std::array<std::uint32_t, 8> signals;  // nothing of it means anything for a vCPU
  std::uint32_t pid;
  std::array<std::uint32_t, 3> other_ids;
  std::array<std::uint64_t, 8> times;
  std::uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, cs, rflags, rsp,
      ss, fs_base, gs_base, ds, es, fs, gs;
  std::uint64_t fp_valid;
};
static_assert(sizeof(PrStatus) == 336);

// QEMU's note: docs call it "QEMUCPUState", version 1 with kernel_gs_base at its end.
struct QemuSegment {
  std::uint32_t selector;
  std::uint32_t limit;
  std::uint32_t flags;  // the descriptor's second half, without base and limit
  std::uint32_t padding;
  std::uint64_t base;
};
struct QemuCpuState {
  std::uint32_t version;
  std::uint32_t size;
  std::uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags;
  QemuSegment cs, ds, es, fs, gs, ss, ldt, tr, gdt, idt;
  std::array<std::uint64_t, 5> cr;
  std::uint64_t kernel_gs_base;
};
static_assert(sizeof(QemuCpuState) == 440);
constexpr std::uint32_t kQemuVersion = 1;

QemuSegment qemu_segment(const kvm_segment& segment) {
  const auto flags =
      static_cast<std::uint32_t>(segment.type << 8U | segment.s << 12U | segment.dpl << 13U | segment.present << 15U |
                                 segment.avl << 20U | segment.l << 21U | segment.db << 22U | segment.g << 23U);
  return {.selector = segment.selector, .limit = segment.limit, .flags = flags, .padding = 0, .base = segment.base};
}

QemuSegment qemu_table(const kvm_dtable& table) {
  return {.selector = 0, .limit = table.limit, .flags = 0, .padding = 0, .base = table.base};
}

PrStatus pr_status(const CpuState& cpu, std::uint32_t pid) {
  const auto& regs = cpu.regs;
  const auto& sregs = cpu.sregs;
  return {.signals = {},
          .pid = pid,
          .other_ids = {},
          .times = {},
          .r15 = regs.r15,
          .r14 = regs.r14,
          .r13 = regs.r13,
          .r12 = regs.r12,
          .rbp = regs.rbp,
          .rbx = regs.rbx,
          .r11 = regs.r11,
          .r10 = regs.r10,
          .r9 = regs.r9,
          .r8 = regs.r8,
          .rax = regs.rax,
          .rcx = regs.rcx,
          .rdx = regs.rdx,
          .rsi = regs.rsi,
          .rdi = regs.rdi,
          .orig_rax = 0,
          .rip = regs.rip,
          .cs = sregs.cs.selector,
          .rflags = regs.rflags,
          .rsp = regs.rsp,
          .ss = sregs.ss.selector,
          .fs_base = sregs.fs.base,
          .gs_base = sregs.gs.base,
          .ds = sregs.ds.selector,
          .es = sregs.es.selector,
          .fs = sregs.fs.selector,
          .gs = sregs.gs.selector,
          .fp_valid = 0};
}

QemuCpuState qemu_state(const CpuState& cpu) {
  const auto& regs = cpu.regs;
  const auto& sregs = cpu.sregs;
  return {.version = kQemuVersion,
          .size = sizeof(QemuCpuState),
          .rax = regs.rax,
          .rbx = regs.rbx,
          .rcx = regs.rcx,
          .rdx = regs.rdx,
          .rsi = regs.rsi,
          .rdi = regs.rdi,
          .rsp = regs.rsp,
          .rbp = regs.rbp,
          .r8 = regs.r8,
          .r9 = regs.r9,
          .r10 = regs.r10,
          .r11 = regs.r11,
          .r12 = regs.r12,
          .r13 = regs.r13,
          .r14 = regs.r14,
          .r15 = regs.r15,
          .rip = regs.rip,
          .rflags = regs.rflags,
          .cs = qemu_segment(sregs.cs),
          .ds = qemu_segment(sregs.ds),
          .es = qemu_segment(sregs.es),
          .fs = qemu_segment(sregs.fs),
          .gs = qemu_segment(sregs.gs),
          .ss = qemu_segment(sregs.ss),
          .ldt = qemu_segment(sregs.ldt),
          .tr = qemu_segment(sregs.tr),
          .gdt = qemu_table(sregs.gdt),
          .idt = qemu_table(sregs.idt),
          .cr = {sregs.cr0, 0, sregs.cr2, sregs.cr3, sregs.cr4},
          .kernel_gs_base = cpu.kernel_gs_base};
}

void append(std::vector<std::byte>& notes, std::span<const std::byte> bytes) {
  notes.insert(notes.end(), bytes.begin(), bytes.end());
  notes.resize((notes.size() + 3) / 4 * 4);
}

void append_note(std::vector<std::byte>& notes, std::string_view name, std::uint32_t type,
                 std::span<const std::byte> content) {
  const std::string padded{name};  // with its NUL
  const Elf64_Nhdr header{.n_namesz = static_cast<Elf64_Word>(name.size() + 1),
                          .n_descsz = static_cast<Elf64_Word>(content.size()),
                          .n_type = type};
  append(notes, std::as_bytes(std::span{&header, 1}));
  append(notes, std::as_bytes(std::span{padded.c_str(), name.size() + 1}));
  append(notes, content);
}

}  // namespace

std::vector<std::byte> vmcore_notes(std::span<const CpuState> cpus, std::string_view vmcoreinfo) {
  std::vector<std::byte> notes;
  for (std::uint32_t i = 0; i < cpus.size(); ++i) {
    const auto status = pr_status(cpus[i], i + 1);
    append_note(notes, "CORE", NT_PRSTATUS, std::as_bytes(std::span{&status, 1}));
  }
  for (const auto& cpu : cpus) {
    const auto state = qemu_state(cpu);
    append_note(notes, "QEMU", 0, std::as_bytes(std::span{&state, 1}));
  }
  if (!vmcoreinfo.empty()) {
    append_note(notes, "VMCOREINFO", 0, std::as_bytes(std::span{vmcoreinfo.data(), vmcoreinfo.size()}));
  }
  return notes;
}

}  // namespace martlet
