#include "vmm/debug/backtrace.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "vmm/debug/virtual_memory.h"

namespace martlet {
namespace {

constexpr std::uint64_t kKernelHalf = 0xffff'8000'0000'0000;
constexpr std::size_t kMaxFrames = 128;
constexpr std::size_t kMaxGuesses = 32;
constexpr std::uint64_t kMaxScan = 16U << 10U;  // Linux' stacks have 16 KiB
constexpr std::uint64_t kUserSelector = 3;

/// struct pt_regs of x86-64 Linux; its last five words are what the CPU pushes.
struct PtRegs {
  std::uint64_t r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax;
  std::uint64_t ip, cs, flags, sp, ss;
};
struct IretFrame {
  std::uint64_t ip, cs, flags, sp, ss;
};

/// The registers as they were in some frame, as far as they are known.
struct Registers {
  std::uint64_t ip = 0;
  std::uint64_t sp = 0;
  std::uint64_t bp = 0;
  std::optional<std::uint64_t> dx{}, di{}, r10{}, r13{};
};

class Unwinder {
 public:
  Unwinder(const GuestMemory& memory, const CpuState& cpu, const KernelCode& code)
      : memory_{memory, paging_of(memory, cpu)}, code_{code} {
    const auto& regs = cpu.regs;
    now_ = {.ip = regs.rip,
            .sp = regs.rsp,
            .bp = regs.rbp,
            .dx = regs.rdx,
            .di = regs.rdi,
            .r10 = regs.r10,
            .r13 = regs.r13};
    frames_.push_back({.address = regs.rip, .after_exception = true, .user = cpu.user_mode()});
  }

  std::vector<Frame> run() && {
    while (frames_.size() < kMaxFrames) {
      if (frames_.back().user) {
        return std::move(frames_);
      }
      const Step step = code_.orc.empty() ? step_by_frame_pointer() : step_by_orc();
      if (step == Step::End) {
        return std::move(frames_);
      }
      if (step == Step::Lost) {
        guess();
        return std::move(frames_);
      }
    }
    return std::move(frames_);
  }

 private:
  enum class Step { Next, End, Lost };

  /// In user mode, and in the first instructions after it, a kernel with PTI has no more than its entry mapped.
  static Paging paging_of(const GuestMemory& memory, const CpuState& cpu) {
    const auto paging = Paging::of(cpu.sregs);
    return walk(memory, paging, cpu.regs.rsp) ? paging : paging.with_kernel_table();
  }

  Step step_by_orc() {
    const Frame& frame = frames_.back();
    // A call may be a function's last instruction: its return address is then the next function's.
    const auto entry = code_.orc.find(frame.after_exception ? now_.ip : now_.ip - 1);
    if (!entry) {
      return step_by_frame_pointer();  // a module's code, say
    }
    if (entry->kind == OrcTable::Kind::EndOfStack) {
      return Step::End;
    }
    const auto sp = frame_of(*entry);
    if (!sp || entry->kind == OrcTable::Kind::Unknown) {
      return Step::Lost;
    }
    if (entry->kind == OrcTable::Kind::Regs) {
      const auto regs = memory_.read<PtRegs>(*sp);
      return regs ? enter({.ip = regs->ip,
                           .sp = regs->sp,
                           .bp = regs->bp,
                           .dx = regs->dx,
                           .di = regs->di,
                           .r10 = regs->r10,
                           .r13 = regs->r13},
                          regs->cs)
                  : Step::Lost;
    }
    Registers before = now_;
    if (!restore_bp(*entry, *sp, before)) {
      return Step::Lost;
    }
    if (entry->kind == OrcTable::Kind::PartialRegs) {
      const auto frame_in_memory = memory_.read<IretFrame>(*sp);
      before.ip = frame_in_memory ? frame_in_memory->ip : 0;
      before.sp = frame_in_memory ? frame_in_memory->sp : 0;
      return frame_in_memory ? enter(before, frame_in_memory->cs) : Step::Lost;
    }
    const auto ip = memory_.read<std::uint64_t>(*sp - sizeof(std::uint64_t));
    before.ip = ip.value_or(0);
    before.sp = *sp;
    before.dx = before.di = before.r10 = std::nullopt;  // a callee may do with them as it likes
    return came_from(before);
  }

  [[nodiscard]] std::optional<std::uint64_t> frame_of(const OrcTable::Entry& entry) const {
    const auto offset = static_cast<std::uint64_t>(std::int64_t{entry.sp_offset});
    const auto plus_offset = [&](std::optional<std::uint64_t> base) {
      return base ? std::optional{*base + offset} : std::nullopt;
    };
    switch (entry.sp_base) {
      case OrcTable::Base::Sp:
        return now_.sp + offset;
      case OrcTable::Base::Bp:
        return now_.bp + offset;
      case OrcTable::Base::SpIndirect:
        return plus_offset(memory_.read<std::uint64_t>(now_.sp));
      case OrcTable::Base::BpIndirect:
        return memory_.read<std::uint64_t>(now_.bp + offset);
      case OrcTable::Base::R10:
        return now_.r10;
      case OrcTable::Base::R13:
        return now_.r13;
      case OrcTable::Base::Di:
        return now_.di;
      case OrcTable::Base::Dx:
        return now_.dx;
      default:
        return std::nullopt;
    }
  }

  [[nodiscard]] bool restore_bp(const OrcTable::Entry& entry, std::uint64_t sp, Registers& before) const {
    if (entry.bp_base == OrcTable::Base::Undefined) {
      return true;  // the function left it alone
    }
    const std::uint64_t base = entry.bp_base == OrcTable::Base::PreviousSp ? sp : now_.bp;
    const auto bp = memory_.read<std::uint64_t>(base + static_cast<std::uint64_t>(std::int64_t{entry.bp_offset}));
    before.bp = bp.value_or(0);
    return bp.has_value();
  }

  Step step_by_frame_pointer() {
    const auto bp = memory_.read<std::uint64_t>(now_.bp);
    const auto ip = memory_.read<std::uint64_t>(now_.bp + sizeof(std::uint64_t));
    // Frames lie upwards; where code keeps no frame pointers, RBP is any number.
    if (!bp || !ip || now_.bp < now_.sp || now_.bp - now_.sp > kMaxScan || now_.bp % sizeof(std::uint64_t) != 0 ||
        !looks_like_return_address(*ip)) {
      return Step::Lost;
    }
    return came_from({.ip = *ip, .sp = now_.bp + 2 * sizeof(std::uint64_t), .bp = *bp});
  }

  /// Goes on in the caller.
  Step came_from(const Registers& before) {
    if (!is_kernel_text(before.ip) && !is_known(before.ip - 1)) {
      return Step::Lost;
    }
    now_ = before;
    frames_.push_back({.address = before.ip});
    return Step::Next;
  }

  /// Goes on in what an exception or interrupt, or a system call, has interrupted.
  Step enter(const Registers& before, std::uint64_t cs) {
    const bool user = (cs & kUserSelector) == kUserSelector;
    if (!user && !is_kernel_text(before.ip)) {
      return Step::Lost;
    }
    now_ = before;
    frames_.push_back({.address = before.ip, .after_exception = true, .user = user});
    return Step::Next;
  }

  void guess() {
    std::size_t guesses = 0;
    const std::uint64_t begin = (now_.sp + 7) & ~std::uint64_t{7};
    for (std::uint64_t at = begin; at < begin + kMaxScan && guesses < kMaxGuesses; at += sizeof(std::uint64_t)) {
      const auto word = memory_.read<std::uint64_t>(at);
      if (!word) {
        return;  // the stack's end, where no page is mapped
      }
      if (looks_like_return_address(*word)) {
        frames_.push_back({.address = *word, .trust = Frame::Trust::Guess});
        ++guesses;
      }
    }
  }

  [[nodiscard]] bool is_kernel_text(std::uint64_t addr) const {
    const auto page = addr >= kKernelHalf ? memory_.translate(addr) : std::nullopt;
    return page && page->executable;
  }

  /// The kernel's start-up code is no longer there when it has run, but its callees return to it (start_kernel).
  [[nodiscard]] bool is_known(std::uint64_t addr) const {
    const auto entry = code_.orc.find(addr);
    return entry && entry->kind != OrcTable::Kind::Unknown;
  }

  /// Code of the kernel, just after an instruction that calls: CALL rel32, or CALL through a register or memory.
  [[nodiscard]] bool looks_like_return_address(std::uint64_t addr) const {
    if (!is_kernel_text(addr)) {
      return false;
    }
    const auto before = memory_.read<std::array<std::uint8_t, 7>>(addr - 7);
    if (!before) {
      return false;
    }
    const auto& code = *before;
    const auto is_indirect = [&](std::size_t length) {
      return code[7 - length] == 0xff && (code[8 - length] >> 3U & 7U) == 2;  // FF /2
    };
    return code[2] == 0xe8 || is_indirect(2) || is_indirect(3) || is_indirect(6) || is_indirect(7);
  }

  VirtualMemory memory_;
  const KernelCode& code_;
  Registers now_;
  std::vector<Frame> frames_;
};

}  // namespace

std::vector<Frame> backtrace(const GuestMemory& memory, const CpuState& cpu, const KernelCode& code) {
  return Unwinder{memory, cpu, code}.run();
}

std::string format_backtrace(const std::vector<Frame>& frames, const Symbols& symbols) {
  std::string out;
  for (const auto& frame : frames) {
    if (frame.user) {
      out += fmt::format(" user code at {:#x}\n", frame.address);
      continue;
    }
    // Of a return address what counts is the call before it.
    const std::uint64_t back = frame.after_exception ? 0 : 1;
    auto place = symbols.find(frame.address - back);
    const auto text = place ? fmt::format("{}+{:#x}/{:#x}", place->name, place->offset + back, place->size)
                            : fmt::format("{:#x}", frame.address);
    out += fmt::format(" {}{}\n", frame.trust == Frame::Trust::Guess ? "? " : "", text);
  }
  return out;
}

}  // namespace martlet
