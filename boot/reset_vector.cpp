#include "boot/reset_vector.h"

#include <array>
#include <cstdint>

#include "vmm/base/error.h"
#include "vmm/x86_64/layout.h"

namespace martlet {

void write_reset_vector(const GuestMemory& memory) {
  constexpr std::uint8_t kResetValue = 1;  // the FADT's RESET_VALUE
  constexpr std::uint16_t kPort = layout::kAcpiReset.start;
  constexpr std::array<std::uint8_t, 9> kCode = {
      0xb0, kResetValue,                 // mov al, kResetValue
      0xba, kPort & 0xffU, kPort >> 8U,  // mov dx, kPort
      0xee,                              // out dx, al
      0xf4,                              // hlt
      0xeb, 0xfd,                        // jmp to the hlt
  };
  static_assert(sizeof kCode <= layout::kResetVector.size);
  if (!memory.write(layout::kResetVector.start, kCode)) {
    throw HostError{"guest memory has no room for the reset vector below 1 MiB; use -m 2M or more"};
  }
}

}  // namespace martlet
