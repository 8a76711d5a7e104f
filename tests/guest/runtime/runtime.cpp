#include "args.h"
#include "exit.h"
#include "idt.h"
#include "pvh.h"
#include "uart.h"

extern "C" {
void* memcpy(void* to, const void* from, std::size_t size);
void* memmove(void* to, const void* from, std::size_t size);
void* memset(void* at, int value, std::size_t size);
int memcmp(const void* a, const void* b, std::size_t size);
[[noreturn]] void guest_start(const guest::HvmStartInfo* info);
void handle_interrupt(guest::Frame* frame);
extern const char interrupt_entries[];
}

// The compiler may call these whenever it likes.
void* memcpy(void* to, const void* from, std::size_t size) {
  void* const result = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  return result;
}
void* memmove(void* to, const void* from, std::size_t size) {
  if (to <= from) {
    return memcpy(to, from, size);
  }
  for (auto* const bytes = static_cast<char*>(to); size-- > 0;) {
    bytes[size] = static_cast<const char*>(from)[size];
  }
  return to;
}
void* memset(void* at, int value, std::size_t size) {
  void* const result = at;
  asm volatile("rep stosb" : "+D"(at), "+c"(size) : "a"(value) : "memory");
  return result;
}
int memcmp(const void* a, const void* b, std::size_t size) {
  const auto* x = static_cast<const unsigned char*>(a);
  const auto* y = static_cast<const unsigned char*>(b);
  for (; size > 0; --size, ++x, ++y) {
    if (*x != *y) {
      return *x < *y ? -1 : 1;
    }
  }
  return 0;
}

namespace guest {

char command_line[4096];

namespace {

constexpr u16 kCodeSelector = 0x08;
constexpr u8 kInterruptGate = 0x8e;  // present, ring 0
constexpr u64 kEntrySize = 16;       // of interrupt_entries

struct Gate {
  u16 offset_low;
  u16 selector;
  u8 stack;
  u8 type;
  u16 offset_middle;
  u32 offset_high;
  u32 reserved;
};
static_assert(sizeof(Gate) == 16);

struct [[gnu::packed]] TablePointer {
  u16 limit;
  u64 base;
};

Gate idt[kVectors];
Handler handlers[kVectors];

void build_idt() {
  for (u32 i = 0; i < kVectors; ++i) {
    const auto entry = reinterpret_cast<u64>(interrupt_entries) + i * kEntrySize;
    idt[i] = {.offset_low = static_cast<u16>(entry),
              .selector = kCodeSelector,
              .stack = 0,
              .type = kInterruptGate,
              .offset_middle = static_cast<u16>(entry >> 16U),
              .offset_high = static_cast<u32>(entry >> 32U),
              .reserved = 0};
  }
}

void copy_command_line(const HvmStartInfo& info) {
  const auto* from = reinterpret_cast<const char*>(info.command_line);
  for (std::size_t i = 0; from != nullptr && i < sizeof command_line - 1 && from[i] != '\0'; ++i) {
    command_line[i] = from[i];
  }
}

}  // namespace

const char* word(const char* name) {
  const char* found = nullptr;
  for (const char* at = command_line; *at != '\0';) {
    const char* wanted = name;
    while (*wanted != '\0' && *at == *wanted) {
      ++at;
      ++wanted;
    }
    if (*wanted == '\0' && *at == '=') {
      found = at + 1;
    }
    while (*at != '\0' && *at++ != ' ') {
    }
  }
  return found;
}

bool word_is(const char* name, const char* value) {
  const char* at = word(name);
  if (at == nullptr) {
    return false;
  }
  while (*value != '\0' && *at == *value) {
    ++at;
    ++value;
  }
  return *value == '\0' && (*at == '\0' || *at == ' ');
}

u64 number_word(const char* name, u64 otherwise) {
  const char* at = word(name);
  if (at == nullptr) {
    return otherwise;
  }
  u64 number = 0;
  for (; *at >= '0' && *at <= '9'; ++at) {
    number = number * 10 + static_cast<u64>(*at - '0');
  }
  return number;
}

void set_handler(u8 vector, Handler handler) { handlers[vector] = handler; }

void load_idt() {
  const TablePointer pointer{sizeof idt - 1, reinterpret_cast<u64>(idt)};
  asm volatile("lidt %0" : : "m"(pointer));
}

}  // namespace guest

void handle_interrupt(guest::Frame* frame) {
  using guest::Hex;
  if (const auto handler = guest::handlers[frame->vector]; handler != nullptr) {
    handler(*frame);
    return;
  }
  if (frame->vector == guest::kSpuriousVector) {
    return;
  }
  guest::u64 cr2;
  asm volatile("movq %%cr2, %0" : "=r"(cr2));
  guest::print(frame->vector < guest::kFirstInterrupt ? "exception " : "unexpected interrupt ", frame->vector,
               " error ", Hex{frame->error}, " rip ", Hex{frame->rip}, " rsp ", Hex{frame->rsp}, " cr2 ", Hex{cr2},
               "\n");
  guest::exit_with(guest::kExceptionExit);
}

void guest_start(const guest::HvmStartInfo* info) {
  guest::copy_command_line(*info);
  guest::build_idt();
  guest::load_idt();
  guest::uart_setup();
  if (info->magic != guest::kStartMagic || info->version < 1) {
    guest::print("FAILED: no hvm_start_info with a memory map: magic ", guest::Hex{info->magic}, " version ",
                 info->version, "\n");
    guest::exit_with(1);
  }
  guest::exit_with(guest_main(*info));
}
