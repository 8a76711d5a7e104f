#include "smp.h"

#include "idt.h"

extern "C" {
extern const char ap_trampoline[];
extern const char ap_trampoline_end[];
extern volatile guest::u32 ap_arrivals;
void ap_enter(guest::u32 arrival);
}

namespace guest {
namespace {

constexpr u64 kTrampoline = 0x8000;        // below 1 MiB, and nothing of the loader's
constexpr u64 kPatience = 60'000'000'000;  // cycles: on a busy host a vCPU's thread may come late

volatile ApMain ap_main;
volatile u32 ap_ready;

/// Some microseconds, on any machine: reading a port that nobody answers is slow.
void delay() {
  for (int i = 0; i < 50; ++i) {
    static_cast<void>(in8(0xed));
  }
}

}  // namespace

bool start_cpu(u32 apic_id, ApMain main) {
  ap_main = main;
  __builtin_memcpy(reinterpret_cast<void*>(kTrampoline), ap_trampoline,
                   static_cast<std::size_t>(ap_trampoline_end - ap_trampoline));
  const u32 before = ap_ready;
  LocalApic::send(apic_id, kDeliverInit | kLevelAssert);
  delay();
  for (int attempt = 0; attempt < 2; ++attempt) {
    LocalApic::send(apic_id, kDeliverStartup | static_cast<u32>(kTrampoline >> 12U));
    const u64 since = read_tsc();
    for (int spin = 0; attempt == 0 ? spin < 2000 : read_tsc() - since < kPatience; ++spin) {
      if (ap_ready != before) {
        return true;
      }
      pause();
    }
  }
  return false;
}

}  // namespace guest

void ap_enter(guest::u32 arrival) {
  guest::load_idt();
  const auto main = guest::ap_main;
  __atomic_fetch_add(&guest::ap_ready, 1, __ATOMIC_SEQ_CST);
  main(arrival);
}
