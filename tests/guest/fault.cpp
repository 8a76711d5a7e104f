// Exceptions arrive with the right vector and error code, and the guest goes on after them; by=nobody
// takes one that is not expected. (No INT3: a KVM that only interprets guests cannot do it in long mode.)
#include "args.h"
#include "check.h"
#include "idt.h"
#include "pvh.h"

namespace {

using namespace guest;

u64 vector_seen;
u64 error_seen;

/// Notes the exception and goes on at the address the code put into RBX.
void note(Frame& frame) {
  vector_seen = frame.vector;
  error_seen = frame.error;
  frame.rip = frame.rbx;
}

void expect(u64 vector, u64 error, const char* what) {
  check_equal(vector_seen, vector, what);
  check_equal(error_seen, error, what);
  print(what, "\n");
  vector_seen = error_seen = ~u64{0};
}

}  // namespace

int guest_main(const HvmStartInfo& /*info*/) {
  if (word_is("by", "nobody")) {
    asm volatile("ud2");
  }
  for (u8 vector = 0; vector < kFirstInterrupt; ++vector) {
    set_handler(vector, note);
  }
  asm volatile("leaq 1f(%%rip), %%rbx; ud2; 1:" : : : "rbx", "memory");
  expect(6, 0, "UD2 is an invalid opcode");
  asm volatile("leaq 1f(%%rip), %%rbx; xorl %%edx, %%edx; xorl %%ecx, %%ecx; divl %%ecx; 1:"
               :
               :
               : "rax", "rbx", "rcx", "rdx", "cc", "memory");
  expect(0, 0, "division by zero is a divide error");
  asm volatile("leaq 1f(%%rip), %%rbx; movq %0, %%rcx; movb (%%rcx), %%al; 1:"
               :
               : "r"(u64{9} << 30U)
               : "rax", "rbx", "rcx", "memory");
  expect(14, 0, "a read past the page tables is a page fault");
  asm volatile("leaq 1f(%%rip), %%rbx; movq %0, %%rcx; movb (%%rcx), %%al; 1:"
               :
               : "r"(u64{1} << 63U)
               : "rax", "rbx", "rcx", "memory");
  expect(13, 0, "a non-canonical address is a general protection fault");
  print("faults done\n");
  return verdict();
}
