// Every CPU spins with interrupts off, so that nothing but a kick ever gets it out of the guest.
#include "acpi.h"
#include "check.h"
#include "pvh.h"
#include "smp.h"

namespace {

using namespace guest;

AcpiCpus listed;

[[noreturn]] void spin() {
  while (true) {
    asm volatile("" : : : "memory");
  }
}
void ap_main(u32 /*arrival*/) { spin(); }

}  // namespace

int guest_main(const HvmStartInfo& info) {
  silence_pics();
  LocalApic::enable(false);
  find_cpus(info, listed);
  for (u32 i = 0; i < listed.count; ++i) {
    if (listed.ids[i] != LocalApic::id() && !start_cpu(listed.ids[i], ap_main)) {
      print("FAILED: CPU ", listed.ids[i], " does not start\n");
      return 1;
    }
  }
  print("spinning ", listed.count, "\n");
  spin();
}
