#pragma once
// Interrupts and exceptions. An exception that nobody expects is printed and ends the guest.

#include "io.h"

namespace guest {

/// What interrupt_common (start.S) leaves on the stack.
struct Frame {
  u64 r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
  u64 vector;
  u64 error;
  u64 rip, cs, rflags, rsp, ss;
};

inline constexpr u8 kFirstInterrupt = 32;
inline constexpr u8 kVectors = 64;
inline constexpr u8 kSpuriousVector = 63;
inline constexpr int kExceptionExit = 99;  // exit code after an exception that nobody expected

using Handler = void (*)(Frame&);

/// From now on `handler` answers `vector`; an exception's may change frame.rip and so decide where to go on.
void set_handler(u8 vector, Handler handler);

/// Each CPU's own LIDT.
void load_idt();

}  // namespace guest
