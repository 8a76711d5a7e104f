// What CPUID says about the machine: that a hypervisor is there, which one, and how the CPUs are arranged.
#include <initializer_list>

#include "apic.h"
#include "check.h"
#include "pvh.h"

namespace {

using namespace guest;

void print_text(u32 a, u32 b, u32 c) {
  for (const u32 part : {a, b, c}) {
    for (unsigned shift = 0; shift < 32; shift += 8) {
      if (const char character = static_cast<char>(part >> shift); character != '\0') {
        print(character);
      }
    }
  }
}

}  // namespace

int guest_main(const HvmStartInfo& /*info*/) {
  const bool hypervisor = (cpuid(1).ecx >> 31U) != 0;
  print("hypervisor ", hypervisor ? "" : "none");
  if (hypervisor) {
    const auto leaf = cpuid(0x40000000);
    print_text(leaf.ebx, leaf.ecx, leaf.edx);
  }
  print("\n");
  check((cpuid(0).eax) >= 0xb, "CPUID has the topology leaf");
  for (u32 level = 0; level < 8; ++level) {
    const auto leaf = cpuid(0xb, level);
    const u32 type = (leaf.ecx >> 8U) & 0xffU;
    if (type == 0) {
      break;
    }
    print("level ", level, type == 1 ? " threads " : " cores ", leaf.ebx & 0xffffU, " shift ", leaf.eax & 0x1fU, "\n");
  }
  return verdict();
}
