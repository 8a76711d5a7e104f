// Starts every CPU of the MADT, has each tell its APIC id and CPUID's, interrupts each by its id and all at
// once, and takes an interrupt back from each. apic=x2 uses the x2APIC (needed for ids above 254).
#include "smp.h"

#include "acpi.h"
#include "args.h"
#include "check.h"
#include "idt.h"
#include "pvh.h"

namespace {

using namespace guest;

constexpr u8 kPing = 0x30;
constexpr u8 kPong = 0x31;

struct Cpu {
  u32 apic_id;
  u32 topology_id;      // CPUID leaf 0xb, EDX
  u32 initial_id;       // CPUID leaf 1
  volatile bool ready;  // an APIC that is not enabled yet would drop what is sent to it
  volatile u32 pings;
};
Cpu cpus[kMostCpus];
AcpiCpus listed;
u32 boot_cpu;
bool x2apic;
volatile u32 pongs;

u32 index_of_this_cpu() {
  const u32 id = LocalApic::id();
  for (u32 i = 0; i < listed.count; ++i) {
    if (listed.ids[i] == id) {
      return i;
    }
  }
  print("FAILED: a CPU with id ", id, " that the MADT does not list\n");
  return 0;
}

void introduce() {
  Cpu& cpu = cpus[index_of_this_cpu()];
  cpu.apic_id = LocalApic::id();
  cpu.topology_id = cpuid(0xb).edx;
  cpu.initial_id = cpuid(1).ebx >> 24U;
  cpu.ready = true;
}

void on_ping(Frame& /*frame*/) {
  Cpu& cpu = cpus[index_of_this_cpu()];
  cpu.pings = cpu.pings + 1;
  LocalApic::end_of_interrupt();
  LocalApic::send(boot_cpu, kDeliverFixed | kLevelAssert | kPong);
}
void on_pong(Frame& /*frame*/) {
  pongs = pongs + 1;
  LocalApic::end_of_interrupt();
}

void ap_main(u32 /*arrival*/) {
  LocalApic::enable(x2apic);
  introduce();
  while (true) {
    wait_for_interrupt();
  }
}

/// Answers that come together may merge into one interrupt, so what counts is that each CPU was pinged.
void wait_for_pings(u32 each) {
  for (u32 i = 0; i < listed.count; ++i) {
    while (listed.ids[i] != boot_cpu && cpus[i].pings < each) {
      pause();
    }
  }
}

}  // namespace

int guest_main(const HvmStartInfo& info) {
  silence_pics();
  x2apic = word_is("apic", "x2");
  check(!x2apic || has_x2apic(), "CPUID offers the x2APIC");
  LocalApic::enable(x2apic);
  boot_cpu = LocalApic::id();
  set_handler(kPing, on_ping);
  set_handler(kPong, on_pong);
  find_cpus(info, listed);
  introduce();
  for (u32 i = 0; i < listed.count; ++i) {
    if (listed.ids[i] != boot_cpu && !start_cpu(listed.ids[i], ap_main)) {
      print("FAILED: CPU ", listed.ids[i], " does not start\n");
      return 1;
    }
    while (listed.ids[i] != boot_cpu && !cpus[i].ready) {
      pause();
    }
  }

  u32 expected_pongs = 0;
  for (u32 i = 0; i < listed.count; ++i) {
    if (listed.ids[i] == boot_cpu) {
      continue;
    }
    const u32 before = pongs;
    LocalApic::send(listed.ids[i], kDeliverFixed | kLevelAssert | kPing);
    while (pongs == before) {  // one at a time, so that no answer merges with another
      wait_for_interrupt();
    }
    ++expected_pongs;
  }
  wait_for_pings(1);
  check_equal(pongs, expected_pongs, "answers");
  if (listed.count > 1) {
    LocalApic::send(0, kDeliverFixed | kLevelAssert | kAllButSelf | kPing);
    wait_for_pings(2);
  }

  for (u32 i = 0; i < listed.count; ++i) {
    const Cpu& cpu = cpus[i];
    check_equal(cpu.apic_id, listed.ids[i], "an APIC's id is the MADT's");
    check_equal(cpu.topology_id, cpu.apic_id, "CPUID leaf 0xb tells the APIC's id");
    check_equal(cpu.initial_id, cpu.apic_id & 0xffU, "CPUID leaf 1 tells its low byte");
    check_equal(cpu.pings, listed.ids[i] == boot_cpu ? 0 : 2, "interrupts from the boot CPU");
  }
  const u32 last = listed.count == 0 ? 0 : listed.ids[listed.count - 1];
  print("cpus ", listed.count, " last id ", last, "\n");
  return verdict();
}
