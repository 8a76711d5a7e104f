#include "vmm/debug/post_mortem.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <system_error>
#include <utility>

#include "vmm/base/error.h"
#include "vmm/debug/elf_file.h"
#include "vmm/debug/kallsyms.h"
#include "vmm/debug/kernel_text.h"

namespace martlet {
namespace {

constexpr std::uint64_t kInterruptFlag = 1U << 9U;

/// The file's symbols and tables, moved to where the kernel runs: by VMCOREINFO, else to where its `text` begins.
/// Nothing when it is another kernel's.
std::optional<KernelCode> code_of_file(const std::string& path, std::optional<std::uint64_t> text, PostMortem& result) {
  KernelCode code;
  std::string build_id;
  if (ElfFile::is_elf(path)) {
    const ElfFile vmlinux{path};
    code.symbols = Symbols{vmlinux};
    code.orc = OrcTable{vmlinux};
    build_id = vmlinux.build_id();
  } else {
    code.symbols = Symbols::load(path);
  }
  if (!result.info && !text) {
    result.remarks.push_back(fmt::format("{}: not used: where the guest's kernel runs is unknown", path));
    return std::nullopt;
  }
  if (result.info && !build_id.empty() && !result.info->build_id().empty() && build_id != result.info->build_id()) {
    result.remarks.push_back(fmt::format("{}: not used: its build ID is {}, that of the guest's kernel ({}) {}", path,
                                         build_id, result.info->release(), result.info->build_id()));
    return std::nullopt;
  }
  const std::uint64_t offset = result.info ? result.info->kernel_offset() : *text - kLinkedKernelText;
  code.symbols.set_offset(offset);
  code.orc.set_offset(offset);
  return code;
}

/// Fills in from the guest what is not yet known.
void add_guests_own(const GuestMemory& memory, PostMortem& result) {
  if (!result.info || (!result.code.symbols.empty() && !result.code.orc.empty())) {
    return;
  }
  auto own = read_kallsyms(memory, *result.info);
  if (result.code.orc.empty()) {
    result.code.orc = OrcTable{memory, *result.info, own};
  }
  if (result.code.symbols.empty()) {
    result.code.symbols = std::move(own);
  }
}

void find_code(const GuestMemory& memory, std::span<const CpuState> cpus, const std::string& vmlinux,
               PostMortem& result) {
  if (!vmlinux.empty()) {
    const auto text = result.info || cpus.empty() ? std::nullopt : find_kernel_text(memory, cpus.front());
    result.code = code_of_file(vmlinux, text, result).value_or(KernelCode{});
  }
  add_guests_own(memory, result);
}

std::string describe_cpu(const GuestMemory& memory, const CpuState& cpu, std::size_t number, const KernelCode& code) {
  const bool interrupts = (cpu.regs.rflags & kInterruptFlag) != 0;
  return fmt::format("vCPU {}: {}, {}, interrupts {}\n{}{}", number,
                     cpu.mp_state == KVM_MP_STATE_HALTED ? "halted" : "running",
                     cpu.user_mode() ? "user mode" : "kernel mode", interrupts ? "on" : "off", format_registers(cpu),
                     format_backtrace(backtrace(memory, cpu, code), code.symbols));
}

}  // namespace

std::string format_registers(const CpuState& cpu) {
  const auto& r = cpu.regs;
  const auto& s = cpu.sregs;
  return fmt::format(
      "  RIP {:04x}:{:016x}  RSP {:04x}:{:016x}  RFLAGS {:08x}\n"
      "  RAX {:016x}  RBX {:016x}  RCX {:016x}\n"
      "  RDX {:016x}  RSI {:016x}  RDI {:016x}\n"
      "  RBP {:016x}  R08 {:016x}  R09 {:016x}\n"
      "  R10 {:016x}  R11 {:016x}  R12 {:016x}\n"
      "  R13 {:016x}  R14 {:016x}  R15 {:016x}\n"
      "  FS  {:016x}  GS  {:016x}  kernel GS {:016x}\n"
      "  CR0 {:08x}  CR2 {:016x}  CR3 {:016x}  CR4 {:08x}  EFER {:08x}\n",
      s.cs.selector, r.rip, s.ss.selector, r.rsp, r.rflags, r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.r8, r.r9,
      r.r10, r.r11, r.r12, r.r13, r.r14, r.r15, s.fs.base, s.gs.base, cpu.kernel_gs_base, s.cr0, s.cr2, s.cr3, s.cr4,
      s.efer);
}

PostMortem examine(const GuestMemory& memory, std::span<const CpuState> cpus, const std::string& vmlinux,
                   std::optional<GuestRange> vmcoreinfo) {
  PostMortem result{.info = find_vmcoreinfo(memory, vmcoreinfo)};
  if (result.info) {
    result.log = read_dmesg(memory, *result.info);
  } else {
    result.remarks.emplace_back("no VMCOREINFO in guest memory: a Linux kernel has it from early in its start on");
  }
  if (result.info && !result.log) {
    result.remarks.emplace_back("no dmesg: VMCOREINFO does not lead to the kernel's log");
  }
  try {
    find_code(memory, cpus, vmlinux, result);
  } catch (const HostError& error) {  // it costs some names, not the rest
    result.remarks.emplace_back(error.what());
    find_code(memory, cpus, {}, result);
  }
  if (result.code.symbols.empty()) {
    result.remarks.emplace_back("no symbols: give the kernel's vmlinux or System.map");
  }
  if (result.code.orc.empty()) {
    result.remarks.emplace_back(
        "no ORC tables: backtraces by frame pointers, and guesses (\" ? \"); give the kernel's vmlinux");
  }
  for (std::size_t i = 0; i < cpus.size(); ++i) {
    result.cpus += describe_cpu(memory, cpus[i], i, result.code);
  }
  return result;
}

Symbols find_symbols(const GuestMemory& memory, std::span<const CpuState> cpus, const std::string& vmlinux,
                     std::optional<GuestRange> vmcoreinfo) {
  PostMortem result{.info = find_vmcoreinfo(memory, vmcoreinfo)};
  find_code(memory, cpus, vmlinux, result);
  return std::move(result.code.symbols);
}

NamedText name_addresses(std::string_view text, const Symbols& symbols) {
  constexpr std::string_view kPrefix = "0x";
  NamedText named;
  while (!text.empty()) {
    const auto at = std::min(text.find(kPrefix), text.size());
    named.text += text.substr(0, at);
    text.remove_prefix(at);
    if (text.empty()) {
      break;
    }
    std::uint64_t address = 0;
    const auto* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data() + kPrefix.size(), end, address, 16);
    const auto word = error == std::errc{} ? text.substr(0, static_cast<std::size_t>(stop - text.data())) : kPrefix;
    const bool known = error == std::errc{} && symbols.find(address).has_value();
    const auto name = known ? symbols.describe(address) : std::string{word};
    named.text += name;
    if (known && named.first.empty()) {
      named.first = name;
    }
    text.remove_prefix(word.size());
  }
  return named;
}

}  // namespace martlet
