#pragma once
// Ports, string I/O, memory-mapped registers, MSRs and CPUID: one instruction each.

#include <cstddef>
#include <cstdint>

namespace guest {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;

inline void out8(u16 port, u8 value) { asm volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory"); }
inline void out16(u16 port, u16 value) { asm volatile("outw %0, %1" : : "a"(value), "Nd"(port) : "memory"); }
inline void out32(u16 port, u32 value) { asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory"); }

inline u8 in8(u16 port) {
  u8 value;
  asm volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
inline u16 in16(u16 port) {
  u16 value;
  asm volatile("inw %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}
inline u32 in32(u16 port) {
  u32 value;
  asm volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
  return value;
}

// REP OUTS and REP INS: `count` items, all through the same port.
inline void outs(u16 port, const u8* from, u64 count) {
  asm volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(port) : "memory");
}
inline void outs(u16 port, const u16* from, u64 count) {
  asm volatile("rep outsw" : "+S"(from), "+c"(count) : "d"(port) : "memory");
}
inline void outs(u16 port, const u32* from, u64 count) {
  asm volatile("rep outsl" : "+S"(from), "+c"(count) : "d"(port) : "memory");
}
inline void ins(u16 port, u8* into, u64 count) {
  asm volatile("rep insb" : "+D"(into), "+c"(count) : "d"(port) : "memory");
}
inline void ins(u16 port, u16* into, u64 count) {
  asm volatile("rep insw" : "+D"(into), "+c"(count) : "d"(port) : "memory");
}
inline void ins(u16 port, u32* into, u64 count) {
  asm volatile("rep insl" : "+D"(into), "+c"(count) : "d"(port) : "memory");
}
/// The same from the last item down: with the direction flag set.
inline void outs_backwards(u16 port, const u8* last, u64 count) {
  asm volatile("std; rep outsb; cld" : "+S"(last), "+c"(count) : "d"(port) : "memory");
}
inline void ins_backwards(u16 port, u8* last, u64 count) {
  asm volatile("std; rep insb; cld" : "+D"(last), "+c"(count) : "d"(port) : "memory");
}

/// One access of exactly T's width.
template <class T>
T mmio_read(u64 address) {
  T value;
  if constexpr (sizeof(T) == 1) {
    asm volatile("movb (%1), %0" : "=q"(value) : "r"(address) : "memory");
  } else if constexpr (sizeof(T) == 2) {
    asm volatile("movw (%1), %0" : "=r"(value) : "r"(address) : "memory");
  } else if constexpr (sizeof(T) == 4) {
    asm volatile("movl (%1), %0" : "=r"(value) : "r"(address) : "memory");
  } else {
    asm volatile("movq (%1), %0" : "=r"(value) : "r"(address) : "memory");
  }
  return value;
}
template <class T>
void mmio_write(u64 address, T value) {
  if constexpr (sizeof(T) == 1) {
    asm volatile("movb %0, (%1)" : : "q"(value), "r"(address) : "memory");
  } else if constexpr (sizeof(T) == 2) {
    asm volatile("movw %0, (%1)" : : "r"(value), "r"(address) : "memory");
  } else if constexpr (sizeof(T) == 4) {
    asm volatile("movl %0, (%1)" : : "r"(value), "r"(address) : "memory");
  } else {
    asm volatile("movq %0, (%1)" : : "r"(value), "r"(address) : "memory");
  }
}

inline u64 read_msr(u32 index) {
  u32 low;
  u32 high;
  asm volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(index) : "memory");
  return (u64{high} << 32U) | low;
}
inline void write_msr(u32 index, u64 value) {
  asm volatile("wrmsr" : : "c"(index), "a"(static_cast<u32>(value)), "d"(static_cast<u32>(value >> 32U)) : "memory");
}
inline u64 read_tsc() {
  u32 low;
  u32 high;
  asm volatile("rdtsc" : "=a"(low), "=d"(high) : : "memory");
  return (u64{high} << 32U) | low;
}

struct Cpuid {
  u32 eax;
  u32 ebx;
  u32 ecx;
  u32 edx;
};
inline Cpuid cpuid(u32 leaf, u32 subleaf = 0) {
  Cpuid r;
  asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
  return r;
}

inline void disable_interrupts() { asm volatile("cli" : : : "memory"); }
/// Interrupts on, sleep until one came, interrupts off: none can slip in between.
inline void wait_for_interrupt() { asm volatile("sti; hlt; cli" : : : "memory"); }
inline void pause() { asm volatile("pause" : : : "memory"); }
[[noreturn]] inline void halt_for_ever() {
  while (true) {
    asm volatile("cli; hlt" : : : "memory");
  }
}

}  // namespace guest
