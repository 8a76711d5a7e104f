#pragma once
// Linux, bare: there is no C library in here.

#include <asm/fcntl.h>
#include <asm/unistd_64.h>
#include <linux/errno.h>

#include <cstddef>
#include <type_traits>

namespace guest {

template <class Value>
long as_long(Value value) noexcept {
  if constexpr (std::is_pointer_v<Value> || std::is_null_pointer_v<Value>) {
    return reinterpret_cast<long>(value);
  } else {
    return static_cast<long>(value);
  }
}

/// A system call; a negative result is an error's number.
template <class... Args>
long call(long number, Args... args) noexcept {
  long values[6] = {as_long(args)...};
  register long r10 asm("r10") = values[3];
  register long r8 asm("r8") = values[4];
  register long r9 asm("r9") = values[5];
  long result;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(values[0]), "S"(values[1]), "d"(values[2]), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  return result;
}

inline long open(const char* path, int flags) noexcept { return call(__NR_open, path, flags | O_CLOEXEC, 0); }
inline void close(long fd) noexcept { call(__NR_close, fd); }
inline long read(long fd, void* into, std::size_t size) noexcept { return call(__NR_read, fd, into, size); }
inline long write(long fd, const void* from, std::size_t size) noexcept { return call(__NR_write, fd, from, size); }
inline bool exists(const char* path) noexcept { return call(__NR_access, path, 0) == 0; }

inline void sleep_ms(long milliseconds) noexcept {
  const long time[2] = {milliseconds / 1000, milliseconds % 1000 * 1'000'000};
  call(__NR_nanosleep, time, nullptr);
}

}  // namespace guest
