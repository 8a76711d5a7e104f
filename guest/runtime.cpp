// What a compiler takes for granted: where a program begins, and five functions.
#include <cstddef>
#include <cstdint>

extern "C" {

[[noreturn]] void guest_main(char** environment);

// The kernel leaves argc, argv …, null, environment …, null on the stack.
[[noreturn, gnu::used]] void guest_start(long* stack) { guest_main(reinterpret_cast<char**>(stack + stack[0] + 2)); }

void* memcpy(void* to, const void* from, std::size_t count) {
  void* const result = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
  return result;
}

void* memset(void* to, int value, std::size_t count) {
  void* const result = to;
  asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(value) : "memory");
  return result;
}

int memcmp(const void* a, const void* b, std::size_t count) {
  const auto* left = static_cast<const volatile unsigned char*>(a);
  const auto* right = static_cast<const volatile unsigned char*>(b);
  for (; count > 0; --count, ++left, ++right) {
    if (*left != *right) {
      return *left < *right ? -1 : 1;
    }
  }
  return 0;
}

std::size_t strlen(const char* text) {
  const volatile char* end = text;  // volatile, here and above: or the compiler would call these functions for them
  while (*end != '\0') {
    ++end;
  }
  return static_cast<std::size_t>(end - text);
}

void* memchr(const void* in, int value, std::size_t count) {
  const auto* at = static_cast<const volatile unsigned char*>(in);
  for (; count > 0; --count, ++at) {
    if (*at == static_cast<unsigned char>(value)) {
      return const_cast<unsigned char*>(at);
    }
  }
  return nullptr;
}

}  // extern "C"

asm(".globl _start\n_start: xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call guest_start\n");
